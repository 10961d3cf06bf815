"""The proposer: looks at what is unexplained so far and words candidates for it."""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np

from agent.evidence import ProposerView
from agent.records import OrderParameter

# "A" and "B" as names of the shown responses only with a capital: "is the response a question?" is a fair question
_LEAK = re.compile(
    r"\b(?:[Rr]esponse|[Rr]eply|[Aa]nswer|[Ss]ide|[Tt]ext|[Cc]ollection) [AB]\b|\b[Pp]air P?\d"
    r"|(?i:\b(?:the other (?:response|reply|answer)|(?:both|two|paired) (?:responses|replies|answers)|fine-?tun\w+|checkpoint\w*)\b)"
    r"|(?i:\b(?:(?:first|second|other) collection|than the (?:first|second) (?:response|reply|answer))\b)"
    r"|(?i:\b(?:training steps?|(?:before|after) training|base model)\b)"
)


class Proposer(Protocol):
    """Anything that can word candidates."""

    @property
    def id(self) -> str:
        """Provider and name, e.g. `embedded`."""

    def propose(self, view: ProposerView, rng: np.random.Generator) -> list[OrderParameter]:
        """At most `view.n` new candidates; an empty list when nothing more is to be found."""


def make_proposer(spec: str) -> Proposer:
    """The proposer named by `--proposer` ("embedded", "scripted:FILE", "anthropic:NAME", "openai:NAME@ADDRESS", ...).

    Raises:
        ConfigError: No such provider, or its key is not in the environment.
    """
    provider, _, rest = spec.partition(":")
    if provider == "embedded":
        from agent.llm.embedded import EmbeddedProposer

        return EmbeddedProposer()
    if provider == "scripted":
        from agent.llm.scripted import ScriptedProposer

        return ScriptedProposer.load(rest)
    from agent.llm.asker import Asker
    from agent.llm.providers import make_provider
    from agent.llm.reading_proposer import ReadingProposer

    return ReadingProposer(Asker(make_provider(spec, "--proposer"), "proposer"), refusal_of)


def refusal_of(candidate: OrderParameter) -> str:
    """Why a candidate cannot be judged from one response alone; empty when it can.

    A question that names the side, the step or the training would leak the answer; one that compares two responses cannot
    be put to a judge who sees one.
    """
    leak = _LEAK.search("\n".join((candidate.name, candidate.definition, candidate.question, *candidate.levels)))
    if leak:
        return f"names {leak.group(0)!r}: a judge sees one response and must not know where it comes from"
    if not 2 <= len(candidate.levels) <= 7:
        return f"expected 2 to 7 levels, found {len(candidate.levels)}"
    if len(set(candidate.levels)) != len(candidate.levels):
        return "two levels have the same anchor"
    return ""
