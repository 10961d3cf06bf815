"""A judge's reply: the level, the quote that shows it, and how sure the judge was where log-probabilities tell."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from agent.errors import ReplyError
from agent.llm.protocol import Alternative, Answer
from agent.llm.reply import json_object
from agent.records import Judgement

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "level": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "quote": {"type": "string"},
        "cannot_tell": {"type": "boolean"},
    },
    "required": ["level", "quote", "cannot_tell"],
    "additionalProperties": False,
}
_BEFORE_LEVEL = re.compile(r'"level"\s*:\s*\Z')
_NUMBER = re.compile(r"\d{1,2}(?:\.0)?")
LONGEST_QUOTE = 400


def read_level(answer: Answer, n_levels: int, completion: str) -> dict[str, Any]:
    """Status, level, probabilities and quote, as fields of `Judgement`.

    Args:
        answer: What the judge said.
        n_levels: Levels of the scale.
        completion: What was judged; a quote that does not occur in it is dropped.

    Returns:
        Fields of a judgement; `quote` is None when none was given, "" when it does not occur.

    Raises:
        ReplyError: The reply does not answer the schema.
    """
    if answer.stop == "refused":
        return {"status": "refused"}
    reply = json_object(answer.text)
    quote, cannot_tell = reply.get("quote"), reply.get("cannot_tell", False)
    if not isinstance(cannot_tell, bool) or not isinstance(quote, str | None):
        raise ReplyError("expected a quote (text) and cannot_tell (true or false)")
    if cannot_tell:
        return {"status": "cannot_tell"}
    level = _level(reply.get("level"), n_levels)
    quote = (quote if occurs(quote, completion) else "") if quote else None
    probabilities = level_probabilities(answer.alternatives, n_levels)
    if probabilities is not None:
        level = max(range(n_levels), key=lambda k: (probabilities[k], k == level))
    return {"status": "read", "level": level, "probabilities": probabilities, "quote": quote}


def missing(parameter_id: str, key: str, repeat: int, status: str) -> Judgement:
    """A judgement that is not a level."""
    return Judgement.model_validate({"parameter_id": parameter_id, "response_key": key, "repeat": repeat, "status": status})


def _level(value: object, n_levels: int) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise ReplyError(f"expected a level from 0 to {n_levels - 1}, found {value!r}")
    if not 0 <= value < n_levels:
        raise ReplyError(f"expected a level from 0 to {n_levels - 1}, found {value:.6g}")
    return int(value)


def occurs(quote: str, completion: str) -> bool:
    """Whether a quote stands in the text, but for case, white space, quotation marks and an ellipsis at its ends."""
    bare = _bare(quote).strip(" .\u2026\"'")
    return 0 < len(bare) <= LONGEST_QUOTE and bare in _bare(completion)


def _bare(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}).split())


def level_probabilities(alternatives: Sequence[Alternative], n_levels: int) -> tuple[float, ...] | None:
    """Probability of each level, from the tokens that could have stood where the level stands.

    Formula: softmax of the log-probabilities of the digits, over the levels only. Valid for scales of at most ten levels (one
    digit) whose digit is a token of its own.

    Returns:
        `n_levels` probabilities adding up to 1, or None where they cannot be told.
    """
    written = ""
    for place in alternatives:
        if _BEFORE_LEVEL.search(written):
            mass = [0.0] * n_levels
            for token, logprob in place.top.items():
                text = token.strip()
                if text.isascii() and text.isdigit() and len(text) == 1 and int(text) < n_levels:
                    mass[int(text)] += math.exp(logprob)
            total = sum(mass)
            return tuple(m / total for m in mass) if total > 0 and place.token.strip().isdigit() else None
        written += place.token
    return None
