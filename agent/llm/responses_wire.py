"""OpenAI's Responses on the wire: the body of one request, and the reply read back. Nothing is kept at OpenAI (`store` false)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.llm.chat_wire import TOP, around_level
from agent.llm.protocol import Answer, Request, Stop, counted, worded


def body(request: Request, name: str, logprobs: bool = True) -> dict[str, Any]:
    """What is sent for one request to the LLM `name`."""
    roles = ("user", "assistant")
    schema = {"type": "json_schema", "name": request.schema_name, "schema": request.schema, "strict": True}
    out: dict[str, Any] = {
        "model": name,
        "instructions": request.system,
        "input": [{"role": roles[k % 2], "content": text} for k, text in enumerate(request.turns)],
        "text": {"format": schema},
        "max_output_tokens": request.max_tokens,
        "store": False,
    }
    return out | ({"include": ["message.output_text.logprobs"], "top_logprobs": TOP} if logprobs else {})


def answer(response: Mapping[str, Any]) -> Answer:
    """A response, as its JSON, as an answer.

    Raises:
        AttributeError, TypeError, KeyError: It is no response, or one that failed.
    """
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    texts = [part for part in parts if part["type"] == "output_text"]
    why, status = (response.get("incomplete_details") or {}).get("reason"), response.get("status")
    stop: Stop = "end"
    if len(texts) < len(parts) or why == "content_filter":
        stop = "refused"
    elif status == "incomplete":
        stop = "truncated"
    elif status != "completed":
        raise TypeError(f"a response that is {status}")
    usage = response.get("usage")
    cached = counted((usage or {}).get("input_tokens_details"), "cached_tokens")
    around = around_level(token for text in texts for token in text.get("logprobs") or [])
    whole = "".join(worded(text["text"]) for text in texts)
    return Answer(whole, stop, counted(usage, "input_tokens"), counted(usage, "output_tokens"), cached, around)
