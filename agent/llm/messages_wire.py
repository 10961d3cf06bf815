"""Anthropic's Messages on the wire: the body of one request, and the reply read back; the same online and in batch files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.llm.protocol import Answer, Request, Stop, counted, worded


def body(request: Request, name: str) -> dict[str, Any]:
    """What is sent for one request to the LLM `name`."""
    return {
        "model": name,
        "max_tokens": request.max_tokens,
        "system": request.system,
        "messages": _messages(request),
        "output_config": {"format": {"type": "json_schema", "schema": request.schema}},
    }


def _messages(request: Request) -> list[dict[str, Any]]:
    first, *later = request.turns
    blocks: list[dict[str, Any]] = [{"type": "text", "text": first[request.lead :]}]
    if request.lead:
        # the response stands first and comes back with every question about it: its tokens are paid once at full price
        blocks.insert(0, {"type": "text", "text": first[: request.lead], "cache_control": {"type": "ephemeral"}})
    roles = ("assistant", "user")
    return [{"role": "user", "content": blocks}, *({"role": roles[k % 2], "content": text} for k, text in enumerate(later))]


def answer(message: Mapping[str, Any]) -> Answer:
    """A message, as its JSON, as an answer.

    Raises:
        AttributeError, TypeError, KeyError: It is no message.
    """
    text = "".join(worded(block["text"]) for block in message["content"] if block["type"] == "text")
    stops: dict[str, Stop] = {"refusal": "refused", "max_tokens": "truncated", "model_context_window_exceeded": "truncated"}
    usage = message["usage"]
    cached = counted(usage, "cache_read_input_tokens")
    whole = usage["input_tokens"] + cached + counted(usage, "cache_creation_input_tokens")
    return Answer(text, stops.get(message.get("stop_reason") or "", "end"), whole, usage["output_tokens"], cached)
