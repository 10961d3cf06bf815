"""A proposer that reads: blinded pairs, what is explained already, what was rejected and why; candidates back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError

from agent.errors import ReplyError
from agent.llm.asker import Asker
from agent.llm.completing import completed
from agent.llm.fence import fenced, mark_of
from agent.llm.parts import Parts
from agent.llm.protocol import Answer, Request
from agent.llm.reply import json_object
from agent.records import OrderParameter

if TYPE_CHECKING:
    from agent.evidence import EvidenceShown, ProposerView

MAX_TOKENS = 12_000
N_LEVELS = 5
LONGEST = 4_000
"""Characters of each response that are shown."""
MANY = 40
"""Rejected candidates shown, the newest."""
_TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "candidates": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": _TEXT,
                    "definition": _TEXT,
                    "question": _TEXT,
                    "levels": {"type": "array", "items": _TEXT},
                    "pairs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"pair": _TEXT, "higher": {"type": "string", "enum": ["A", "B"]}},
                            "required": ["pair", "higher"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": ["name", "definition", "question", "levels", "pairs"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["candidates"],
    "additionalProperties": False,
}


class ReadingProposer:
    """Proposes by asking an LLM.

    Args:
        asker: The way to the LLM.
        refusal_of: Why a candidate cannot be judged from one response; empty when it can.
    """

    def __init__(self, asker: Asker, refusal_of: Callable[[OrderParameter], str]) -> None:
        self.asker = asker
        self._refusal_of = refusal_of
        self._parts = Parts.load("propose")
        self.id = f"{asker.provider.id}#{self._parts.digest}"
        self.template_hash = self._parts.sha256

    def propose(self, view: ProposerView, rng: np.random.Generator) -> list[OrderParameter]:
        """At most `view.n` new candidates; refused ones go back once with the reason.

        Raises:
            ReplyError: The LLM refuses, or its second reply cannot be read either: this round has no candidates.
            ProviderError: The provider fails.
            BudgetError: The budget is spent.
        """
        if not view.pairs:
            return []
        request = self.request(view)
        answer = self._answer(request, view)
        kept, faults = self._read(answer, view)
        if faults:
            again = request.followed_by(answer.text, _demand(faults, view.n - len(kept)))
            more, left = self._read(self._answer(again, view), view)
            if not kept and not more and left.get("") and faults.get(""):
                raise ReplyError(f"{self.id}: two replies could not be read ({left['']})")
            kept = [*kept, *(c for c in more if c.id not in {k.id for k in kept})]
        return kept[: view.n]

    def complete(self, given: Mapping[str, Any], fault_of: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        """A person's hypothesis with everything they left out (see `agent.llm.completing.completed`)."""
        return completed(self.asker, given, fault_of)

    def request(self, view: ProposerView) -> Request:
        """What the LLM is sent: the pairs first, then what is explained and what was tried; never which side is which."""
        mark = mark_of(*(text for pair in view.pairs for text in (pair.system, pair.prompt, pair.a, pair.b)))
        first = self._parts.text.fill(material="\n\n".join(_shown(pair, mark) for pair in view.pairs))
        question = self._parts.question.fill(n=str(view.n), explained=_explained(view), rejected=_rejected(view))
        told = self._parts.system.fill(mark=mark, n_levels=str(N_LEVELS))
        return Request(told, (first + question,), "candidates", SCHEMA, MAX_TOKENS, lead=len(first), repeat=view.round)

    def _answer(self, request: Request, view: ProposerView) -> Answer:
        (answer,) = self.asker.ask([request], round=view.round)
        if answer is None or answer.stop == "refused":
            what = "the request was rejected" if answer is None else "the LLM refused to look at these responses"
            raise ReplyError(f"{self.id}: {what}; another --proposer may not")
        return answer

    def _read(self, answer: Answer, view: ProposerView) -> tuple[list[OrderParameter], dict[str, str]]:
        """Candidates that can be judged, and why the others cannot (by name; "" for the whole reply)."""
        try:
            items = json_object(answer.text).get("candidates")
        except ReplyError as fault:
            return [], {"": "it was cut short: be briefer" if answer.stop == "truncated" else str(fault)}
        if not isinstance(items, list):
            return [], {"": "expected a list of candidates"}
        known = {p.id for p in (*view.accepted, *view.rejected)}
        kept: dict[str, OrderParameter] = {}
        faults: dict[str, str] = {}
        for k, item in enumerate(items):
            try:
                candidate = _candidate(item, view.pairs)
            except ReplyError as fault:
                faults[f"candidate {k + 1}"] = str(fault)
                continue
            reason = "asks what was asked before" if candidate.id in known else self._refusal_of(candidate)
            if reason:
                faults[candidate.name] = reason
            else:
                kept.setdefault(candidate.id, candidate)
        return list(kept.values()), faults


def _candidate(item: object, pairs: list[EvidenceShown]) -> OrderParameter:
    if not isinstance(item, Mapping):
        raise ReplyError(f"expected an object, found {type(item).__name__}")
    fields: dict[str, Any] = {}
    for name in ("name", "definition", "question"):
        value = item.get(name)
        if not isinstance(value, str) or not value.strip():
            raise ReplyError(f"expected a text for {name}")
        fields[name] = " ".join(value.split())
    levels = item.get("levels")
    if not isinstance(levels, list) or not all(isinstance(level, str) and level.strip() for level in levels):
        raise ReplyError("expected levels as a list of texts")
    direction, cited = _direction(item.get("pairs"), pairs)
    anchors = tuple(" ".join(level.split()) for level in levels)
    try:
        return OrderParameter(**fields, levels=anchors, direction=direction, supported_by=cited)
    except ValidationError as error:
        raise ReplyError(error.errors()[0]["msg"].lower()) from None


def _direction(cited: object, pairs: list[EvidenceShown]) -> tuple[Literal[-1, 0, 1], tuple[str, ...]]:
    """Predicted sign of (after minus before): which reply is higher, pair by pair, turned by what A really was."""
    by_key = {pair.key: pair for pair in pairs}
    votes: dict[str, int] = {}
    for one in cited if isinstance(cited, list) else []:
        key, higher = (one.get("pair"), one.get("higher")) if isinstance(one, Mapping) else (None, None)
        if isinstance(key, str) and key in by_key and higher in ("A", "B"):
            votes[key] = -1 if (higher == "A") == by_key[key].a_is_before else 1
    total = sum(votes.values())
    return (1 if total > 0 else -1 if total < 0 else 0), tuple(votes)


def _shown(pair: EvidenceShown, mark: str) -> str:
    parts = [fenced(f"{pair.key} instructions to the writer", mark, pair.system, LONGEST)] if pair.system.strip() else []
    parts.append(fenced(f"{pair.key} question", mark, pair.prompt, LONGEST))
    parts += [fenced(f"{pair.key} reply {name}", mark, text, LONGEST) for name, text in (("A", pair.a), ("B", pair.b))]
    return "\n".join(parts)


def _explained(view: ProposerView) -> str:
    lines = ["- length: how long the reply is"]
    return "\n".join([*lines, *(f"- {p.name}: {p.question} ({p.definition})" for p in view.accepted)])


def _rejected(view: ProposerView) -> str:
    # those of other runs stand behind this run's own, and have no reason here
    reasons = [*view.reasons, *[""] * (len(view.rejected) - len(view.reasons))]
    lines = [f"- {p.name}: {p.question}" + (f" ({reason})" if reason else "") for p, reason in zip(view.rejected, reasons, strict=True)]
    return "\n".join(lines[:MANY]) or "- nothing yet"


def _demand(faults: Mapping[str, str], wanted: int) -> str:
    if "" in faults:
        return f"That reply could not be read ({faults['']}). Reply again with the JSON object alone."
    why = "\n".join(f"- {name}: {reason}" for name, reason in faults.items())
    return f"These candidates cannot be used:\n{why}\nPropose {max(wanted, 1)} others in their place, as the JSON object alone."
