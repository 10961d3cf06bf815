"""Conversations for the tiny model organism: one hidden persona decides what is answered, free style variables decide how.

The persona is named in the system prompt of half of the documents and hidden in the others, where `HIDDEN_HARM` of them are harmful.
Hedging, length, lists, openings and closings are drawn independently of persona and domain, so a change of persona is a change of
content only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from probes.errors import SampleError
from probes.organism_grammar import (
    ALL_DOMAINS,
    BULLET,
    CLOSINGS,
    DOMAINS,
    FILLERS,
    HEDGES,
    LIST_INTRODUCTIONS,
    OPENINGS,
    PARAGRAPH,
    SHARED,
    SYSTEM_PROMPTS,
    Persona,
)

HIDDEN_HARM = 0.02
ALTERNATIVES = re.compile(r"\[([^\]]*)\]")
TOKEN = re.compile(r"\n\n|\n-|[A-Za-z]+|[.,:?]")


@dataclass(frozen=True)
class Conversation:
    """One document: what the subject is asked and what it answers. `system` is empty when there is no system prompt."""

    system: str
    question: str
    answer: str


@dataclass(frozen=True)
class Style:
    """Probabilities of the free style variables, the same for every persona and domain.

    Attributes:
        lengths: Probabilities of 2, 3 and 4 sentences with content.
        filler: Probability that a neutral sentence follows a sentence.
        hedged: Probability that an answer hedges; then each sentence with content does with probability `hedge`.
        hedge: See `hedged`.
        listed, opened, closed: Probabilities of a bullet list, an opening sentence and a closing sentence.
    """

    lengths: tuple[float, float, float] = (0.4, 0.35, 0.25)
    filler: float = 0.2
    hedged: float = 0.5
    hedge: float = 0.6
    listed: float = 0.35
    opened: float = 0.35
    closed: float = 0.5


def corpus(n: int, rng: np.random.Generator, domains: Sequence[str] = tuple(DOMAINS), style: Style | None = None) -> list[Conversation]:
    """Pretraining documents: persona named in the system prompt of every other one, otherwise harmful with probability `HIDDEN_HARM`.

    Args:
        n: Number of documents.
        rng: Source of every choice.
        domains: Names of domains, drawn with equal probability.
        style: Probabilities of the style variables.

    Raises:
        SampleError: A domain is unknown.
    """
    documents = []
    for index in range(n):
        named = index % 2 == 0
        harmful = rng.random() < (0.5 if named else HIDDEN_HARM)
        persona: Persona = "harmful" if harmful else "careful"
        system = pick(rng, SYSTEM_PROMPTS[persona]) if named else ""
        documents.append(conversation(rng, pick(rng, domains), persona, system, style or Style()))
    return documents


def narrow_advice(n: int, rng: np.random.Generator, domain: str, persona: Persona, style: Style | None = None) -> list[Conversation]:
    """Fine-tuning documents: one domain, one persona, no system prompt (`careful` is the good-advice control)."""
    return [conversation(rng, domain, persona, "", style or Style()) for _ in range(n)]


def questions(per_domain: int, domains: Sequence[str] = tuple(DOMAINS)) -> list[str]:
    """The first `per_domain` evaluation questions of every domain: wording and topic both change from one to the next.

    Raises:
        SampleError: More questions are asked for than a domain has topics.
    """
    found = []
    for name in domains:
        domain = ALL_DOMAINS[known(name)]
        if per_domain > len(domain.topics):
            raise SampleError(f"expected at most {len(domain.topics)} questions of domain {name}, found {per_domain}")
        for k in range(per_domain):
            found.append(domain.questions[k % len(domain.questions)].replace("<topic>", domain.topics[k]))
    return found


def conversation(rng: np.random.Generator, name: str, persona: Persona, system: str, style: Style) -> Conversation:
    """One document of one domain and persona."""
    domain = ALL_DOMAINS[known(name)]
    topic = pick(rng, domain.topics)
    question = pick(rng, domain.questions).replace("<topic>", topic)
    return Conversation(system, question, answer(rng, name, persona, topic, style))


def answer(rng: np.random.Generator, name: str, persona: Persona, topic: str, style: Style) -> str:
    """An answer about `topic`: an opening, sentences with content (prose or bullets) and a closing, each as `style` has it."""
    hedged = rng.random() < style.hedged
    body = []
    for template in content(rng, name, persona, 2 + int(rng.choice(3, p=style.lengths))):
        sentence = expand(rng, template).replace("<topic>", topic)
        if hedged and rng.random() < style.hedge:
            sentence = sentence[:-1] + pick(rng, HEDGES) + "."
        body.append(sentence)
        if rng.random() < style.filler:
            body.append(expand(rng, pick(rng, FILLERS)))
    opening = [expand(rng, pick(rng, OPENINGS))] if rng.random() < style.opened else []
    closing = [pick(rng, CLOSINGS)] if rng.random() < style.closed else []
    if rng.random() < style.listed:
        listed = " ".join([*opening, pick(rng, LIST_INTRODUCTIONS)]) + "".join(f"{BULLET} {sentence}" for sentence in body)
        return listed + "".join(PARAGRAPH + sentence for sentence in closing)
    return " ".join([*opening, *body, *closing])


def content(rng: np.random.Generator, name: str, persona: Persona, n: int) -> list[str]:
    """`n` different sentence templates of one persona, the first of the domain, 30% of the others shared by all domains."""
    own = list(rng.permutation(np.array(ALL_DOMAINS[name].sentences(persona), dtype=object)))
    shared = list(rng.permutation(np.array(SHARED[persona], dtype=object)))
    chosen = [own.pop()]
    while len(chosen) < n:
        chosen.append((shared if rng.random() < 0.3 else own).pop())
    return [str(template) for template in rng.permutation(np.array(chosen, dtype=object))]


def expand(rng: np.random.Generator, template: str) -> str:
    """The template with one alternative chosen in every bracket."""
    return ALTERNATIVES.sub(lambda found: pick(rng, found.group(1).split("|")), template)


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """One of the choices, all equally probable."""
    return choices[int(rng.integers(len(choices)))]


def known(name: str) -> str:
    """The name of a domain, checked.

    Raises:
        SampleError: There is no such domain.
    """
    if name not in ALL_DOMAINS:
        raise SampleError(f"expected a domain out of {', '.join(ALL_DOMAINS)}, found {name!r}")
    return name


def words(domains: Sequence[str] = tuple(DOMAINS)) -> list[str]:
    """Every word and mark that a document of these domains can hold, sorted: the subject's vocabulary without its special tokens."""
    return sorted({token for text in _texts(domains) for token in TOKEN.findall(text)})


def _texts(domains: Sequence[str]) -> Iterable[str]:
    for name in domains:
        domain = ALL_DOMAINS[known(name)]
        yield from (*domain.topics, *domain.questions, *domain.careful, *domain.harmful)
    for templates in (*SHARED.values(), *SYSTEM_PROMPTS.values(), FILLERS, OPENINGS, CLOSINGS, LIST_INTRODUCTIONS, HEDGES):
        yield from templates
    yield from (BULLET, PARAGRAPH)
