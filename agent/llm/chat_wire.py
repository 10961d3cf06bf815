"""OpenAI's chat.completions on the wire: the body of one request, and the reply read back; the same online and in batch files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from agent.llm.protocol import Alternative, Answer, Request, Stop, counted, worded

TOP = 20
"""Alternatives asked for at each token: the most the API gives."""
Form = Literal["json_schema", "json_object", "text"]


def body(request: Request, name: str, form: Form = "json_schema", logprobs: bool = True, length: str = "max_tokens") -> dict[str, Any]:
    """What is sent for one request to the LLM `name`.

    Args:
        request: The request.
        name: As the server lists it.
        form: How the reply is asked for.
        logprobs: Whether log-probabilities are asked for.
        length: What the server calls the longest reply ("max_tokens", "max_completion_tokens").
    """
    roles = ("user", "assistant")
    turns = [{"role": roles[k % 2], "content": text} for k, text in enumerate(request.turns)]
    out: dict[str, Any] = {"model": name, "messages": [{"role": "system", "content": request.system}, *turns], length: request.max_tokens}
    if form == "json_schema":
        out["response_format"] = {"type": form, form: {"name": request.schema_name, "schema": request.schema, "strict": True}}
    elif form == "json_object":
        out["response_format"] = {"type": form}
    return out | ({"logprobs": True, "top_logprobs": TOP} if logprobs else {})


def answer(completion: Mapping[str, Any]) -> Answer:
    """A completion, as its JSON, as an answer.

    Raises:
        AttributeError, TypeError, IndexError, KeyError: It is no completion.
    """
    choice, usage = completion["choices"][0], completion.get("usage")
    message, why = choice["message"], choice.get("finish_reason")
    refused = bool(message.get("refusal")) or why == "content_filter"
    stop: Stop = "refused" if refused else "truncated" if why == "length" else "end"
    given, made = counted(usage, "prompt_tokens"), counted(usage, "completion_tokens")
    cached = counted((usage or {}).get("prompt_tokens_details"), "cached_tokens")
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return Answer(worded(message.get("content")), stop, given, made, cached, around_level(tokens))


def around_level(tokens: Iterable[Mapping[str, Any]]) -> tuple[Alternative, ...]:
    """Alternatives of the tokens up to the first digit: all that is needed for a level, a hundredth of what was sent."""
    places: list[Alternative] = []
    for place in tokens:
        token = place["token"]
        places.append(Alternative(token, {}))
        if any(c.isdigit() for c in token):
            places[-1] = Alternative(token, {a["token"]: a["logprob"] for a in place.get("top_logprobs") or []})
            break
    return tuple(places)
