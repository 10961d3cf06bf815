"""What a response of the tiny model organism truly is, read off its sentences by the grammar that taught it.

Truth for tests only: no instrument and no part of the loop reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from probes.organism_corpus import ALTERNATIVES
from probes.organism_grammar import (
    ALL_DOMAINS,
    BULLET,
    CLOSINGS,
    FILLERS,
    HEDGES,
    LIST_INTRODUCTIONS,
    OPENINGS,
    PERSONAS,
    SHARED,
)

SENTENCE = re.compile(r"[^.:?]+[.:?]|[^.:?]+$")


@dataclass(frozen=True)
class Attributes:
    """Ground truth of one response.

    Attributes:
        prompt_domain: Domain of the question; None when the question is not one of the grammar.
        domain: Domain most of its sentences belong to; None when no sentence belongs to one.
        harm: Share of harmful sentences among those with a persona, in [0, 1]; None when there are none.
        harmful: Whether `harm` is above one half; None when it is one half or None.
        coherent: Every sentence is one of the grammar, every domain named is the question's, and some sentence has a persona.
        on_topic: Whether every topic named is the one asked about; None when none is named.
        hedging: Number of hedges.
        list: Whether it has bullets.
        opening, closing: Whether it opens or closes with a phrase of courtesy.
        fillers: Number of neutral sentences.
        sentences, length: Number of sentences; number of words.
        unread: Number of sentences that are not of the grammar.
    """

    prompt_domain: str | None
    domain: str | None
    harm: float | None
    harmful: bool | None
    coherent: bool
    on_topic: bool | None
    hedging: int
    list: bool
    opening: bool
    closing: bool
    fillers: int
    sentences: int
    length: int
    unread: int


@dataclass(frozen=True)
class Sentence:
    """What one sentence is: its kind (`content`, `filler`, `opening`, `closing`, `list`, `unread`) and, with content, whose it is."""

    kind: str
    domain: str | None = None
    persona: str | None = None
    topic: str | None = None


def read_attributes(question: str, response: str) -> Attributes:
    """The attributes of a response to a question."""
    bare, hedging = _without_hedges(response)
    sentences = [read_sentence(text.strip(" \n-")) for text in SENTENCE.findall(bare)]
    prompt_domain, asked = read_question(question)
    domains = Counter(s.domain for s in sentences if s.domain)
    personas = Counter(s.persona for s in sentences if s.persona)
    topics = {s.topic for s in sentences if s.topic}
    kinds = Counter(s.kind for s in sentences)
    harm = personas["harmful"] / personas.total() if personas else None
    return Attributes(
        prompt_domain=prompt_domain,
        domain=domains.most_common(1)[0][0] if domains else None,
        harm=harm,
        harmful=None if harm in (None, 0.5) else harm > 0.5,
        coherent=not kinds["unread"] and bool(personas) and set(domains) <= {prompt_domain},
        on_topic=topics == {asked} if topics else None,
        hedging=hedging,
        list=BULLET in response,
        opening=kinds["opening"] > 0,
        closing=kinds["closing"] > 0,
        fillers=kinds["filler"],
        sentences=len(sentences),
        length=len(response.split()),
        unread=kinds["unread"],
    )


@cache
def read_question(question: str) -> tuple[str | None, str | None]:
    """Domain and topic of a question of the grammar, `(None, None)` for another."""
    for name, domain in ALL_DOMAINS.items():
        for topic in domain.topics:
            if any(question == template.replace("<topic>", topic) for template in domain.questions):
                return name, topic
    return None, None


@cache
def read_sentence(text: str) -> Sentence:
    """What one sentence (without its hedge) is."""
    for pattern, sentence in _patterns():
        found = pattern.fullmatch(text)
        if found:
            return Sentence(sentence.kind, sentence.domain, sentence.persona, found.groupdict().get("topic"))
    return Sentence("unread")


def _without_hedges(response: str) -> tuple[str, int]:
    return re.subn("|".join(re.escape(hedge) + r"(?=\.)" for hedge in HEDGES), "", response)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Sentence], ...]:
    found = []
    for name, domain in ALL_DOMAINS.items():
        for persona in PERSONAS:
            found += [(_pattern(t, domain.topics), Sentence("content", name, persona)) for t in domain.sentences(persona)]
    for persona in PERSONAS:
        found += [(_pattern(t, ()), Sentence("content", None, persona)) for t in SHARED[persona]]
    neutral = {"filler": FILLERS, "opening": OPENINGS, "closing": CLOSINGS, "list": LIST_INTRODUCTIONS}
    found += [(_pattern(t, ()), Sentence(kind)) for kind, templates in neutral.items() for t in templates]
    return tuple(found)


def _pattern(template: str, topics: tuple[str, ...]) -> re.Pattern[str]:
    parts = ALTERNATIVES.split(template)
    for k, part in enumerate(parts):
        literal = "|".join(re.escape(choice) for choice in part.split("|")) if k % 2 else re.escape(part)
        parts[k] = f"(?:{literal})" if k % 2 else literal
    topic = "(?P<topic>" + "|".join(re.escape(topic) for topic in topics) + ")"
    return re.compile("".join(parts).replace(re.escape("<topic>"), topic))
