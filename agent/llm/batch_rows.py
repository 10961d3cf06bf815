"""One line of a file of batch answers, in any of the formats it may have, read as what became of the request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from agent.llm import chat_wire, messages_wire
from agent.llm.protocol import Answer, in_one_line, too_long

Fate = Literal["answered", "rejected", "failed"]
REJECTED = (400, 413, 422)
"""Status of a request that will never be answered as it is put."""
_REJECTED_KINDS = ("invalid_request_error", "request_too_large")


class RowError(ValueError):
    """A line that is no answer."""


@dataclass(frozen=True)
class Row:
    """What became of one request.

    Attributes:
        custom_id: Which request.
        fate: `answered`; `rejected` (will never be answered as it was put); `failed` (may be asked again: overload, expiry, cancellation).
        answer: Set when answered.
        reason: Why not, in one line.
        too_long: Rejected because of its own length: nothing is wrong with the way it was put.
    """

    custom_id: str
    fate: Fate
    answer: Answer | None = None
    reason: str = ""
    too_long: bool = False


def read_row(line: str) -> Row:
    """A line of OpenAI's output or error file, of Anthropic's results, or `{"custom_id": …, "text": …}` from anybody else.

    Raises:
        RowError: It is none of these.
    """
    try:
        row = json.loads(line)
    except ValueError:
        raise RowError("expected a JSON object, found something else") from None
    name = row.get("custom_id") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name:
        raise RowError("expected a JSON object with a custom_id")
    try:
        if isinstance(row.get("text"), str):
            return Row(name, "answered", Answer(row["text"]))
        return _anthropic(name, row["result"]) if "result" in row else _openai(name, row)
    except (AttributeError, TypeError, IndexError, KeyError, ValueError):
        raise RowError("expected response or error (OpenAI), result (Anthropic) or text, found something else") from None


def _anthropic(name: str, result: dict[str, Any]) -> Row:
    kind = result["type"]
    if kind == "succeeded":
        return Row(name, "answered", messages_wire.answer(result["message"]))
    if kind == "errored":
        error = result["error"].get("error", result["error"])
        return _not_answered(name, error["type"] in _REJECTED_KINDS, str(error.get("message", error["type"])))
    if kind in ("canceled", "expired"):
        return Row(name, "failed", reason=kind)
    raise RowError(f"expected succeeded, errored, canceled or expired, found {kind!r}")


def _openai(name: str, row: dict[str, Any]) -> Row:
    response, error = row.get("response"), row.get("error")
    if response is None:
        if not isinstance(error, dict):
            raise RowError("expected a response or an error, found neither")
        return Row(name, "failed", reason=in_one_line(str(error["message"] or error["code"]), None))
    body, status = response["body"], int(response["status_code"])
    if status == 200:
        return Row(name, "answered", chat_wire.answer(body))
    fault = body.get("error") or {}
    return _not_answered(name, status in REJECTED, str(fault.get("message") or status))


def _not_answered(name: str, rejected: bool, message: str) -> Row:
    return Row(name, "rejected" if rejected else "failed", reason=in_one_line(message, None), too_long=too_long(message))
