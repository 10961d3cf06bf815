"""A person's hypothesis in their own words, made an order parameter by an LLM: only what they left out is worded for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agent.errors import ReplyError
from agent.llm.asker import Asker
from agent.llm.fence import fenced, mark_of
from agent.llm.parts import Parts
from agent.llm.protocol import Answer, Request
from agent.llm.reply import json_object

MAX_TOKENS = 4_000
N_LEVELS = 5
_TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "definition": _TEXT,
        "question": _TEXT,
        "levels": {"type": "array", "items": _TEXT},
        "direction": {"type": "integer", "enum": [-1, 0, 1]},
    },
    "required": ["name", "definition", "question", "levels", "direction"],
    "additionalProperties": False,
}
FIELDS = tuple(SCHEMA["required"])


def completed(asker: Asker, given: Mapping[str, Any], fault_of: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """The hypothesis with everything that was left out.

    Args:
        asker: The way to the proposer's LLM.
        given: What the person wrote: `statement`, and any field of `FIELDS`.
        fault_of: What is wrong with the fields put together; empty when nothing is.

    Returns:
        `given` without the statement, and what the LLM worded of the rest.

    Raises:
        ReplyError: The LLM refuses, or words nothing that can be used, twice.
        ProviderError, BudgetError, AwaitingError: As the asker's.
    """
    asked = request(given)
    answer = _answer(asker, asked)
    try:
        return _read(answer, given, fault_of)
    except ReplyError as fault:
        demand = f"That cannot be used: {fault}. Word it again, as the JSON object alone."
        return _read(_answer(asker, asked.followed_by(answer.text, demand)), given, fault_of)


def request(given: Mapping[str, Any]) -> Request:
    """What the LLM is sent: the person's words between fences, and which fields they gave."""
    parts = Parts.load("complete")
    words = {name: value for name, value in given.items() if name in (*FIELDS, "statement")}
    shown = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in words.items()}
    mark = mark_of(*shown.values())
    first = parts.text.fill(material="\n\n".join(fenced(name, mark, text) for name, text in shown.items()))
    own = ", ".join(name for name in FIELDS if name in given) or "none"
    told = parts.system.fill(mark=mark, n_levels=str(N_LEVELS))
    return Request(told, (first + parts.question.fill(given=own),), "hypothesis", SCHEMA, MAX_TOKENS, lead=len(first))


def _answer(asker: Asker, asked: Request) -> Answer:
    (answer,) = asker.ask([asked], round=0)
    if answer is None or answer.stop == "refused":
        raise ReplyError("the proposer refused to word it")
    return answer


def _read(answer: Answer, given: Mapping[str, Any], fault_of: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    reply = json_object(answer.text)
    fields = {name: given[name] for name in given if name != "statement"}
    for name in ("name", "definition", "question"):
        value = reply.get(name)
        if name not in fields:
            if not isinstance(value, str) or not value.strip():
                raise ReplyError(f"expected a text for {name}")
            fields[name] = " ".join(value.split())
    if "levels" not in fields:
        levels = reply.get("levels")
        if not isinstance(levels, list) or not all(isinstance(level, str) and level.strip() for level in levels):
            raise ReplyError("expected levels as a list of texts")
        fields["levels"] = [" ".join(level.split()) for level in levels]
    if "direction" not in fields:
        direction = reply.get("direction", 0)
        fields["direction"] = direction if direction in (-1, 0, 1) and not isinstance(direction, bool) else 0
    if fault := fault_of(fields):
        raise ReplyError(fault)
    return fields
