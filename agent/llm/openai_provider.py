"""OpenAI, and every server that speaks its chat.completions, through OpenAI's SDK.

Keys: OPENAI_API_KEY for OpenAI itself. A server given by its address gets OPENAI_COMPATIBLE_API_KEY (or none), so that a key for
OpenAI never leaves for somebody else's machine.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.errors import ConfigError, ProviderError
from agent.llm.protocol import Alternative, Answer, Ask, BusyError, RejectedError, Request, Stop, in_one_line, too_long

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY, COMPATIBLE_KEY = "OPENAI_API_KEY", "OPENAI_COMPATIBLE_API_KEY"
ITEM_ERRORS = (400, 413, 422)
BUSY_ERRORS = (408, 409, 425, 429)
TOP = 20
"""Alternatives asked for at each token: the most the API gives."""
WAYS = (("json_schema", True), ("json_schema", False), ("json_object", False), ("text", False))
"""(form of the reply, log-probabilities) from the best downwards; a server that rejects one is asked the next way."""


@dataclass
class OpenAIProvider:
    """An LLM behind chat.completions.

    The SDK retries twice by itself and waits as long as Retry-After says; nothing is stacked on top. Sampling is the LLM's own default.
    What the server can do is learnt from the first requests: what it rejects is left out, what it ignores is done without.

    Attributes:
        name: As the server lists it.
        base_url: Address of a compatible server, ending in /v1; None for OpenAI.
        timeout: Seconds for one attempt.
    """

    name: str
    base_url: str | None = None
    timeout: float = 120.0
    way: int = 0
    _answered: bool = False

    def __post_init__(self) -> None:
        if self.base_url is None and not os.environ.get(KEY):
            raise ConfigError(f"{self.id}: expected a key in the environment variable {KEY}, found none")
        if self.base_url is not None:
            _check_address(self.base_url)

    @property
    def id(self) -> str:
        """`openai:NAME` or `openai:NAME@ADDRESS`."""
        return f"openai:{self.name}" + ("" if self.base_url is None else f"@{self.base_url}")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """An open client."""
        from openai import AsyncOpenAI

        async with AsyncOpenAI(api_key=self._key, base_url=self.base_url, timeout=self.timeout) as client:

            async def ask(request: Request) -> Answer:
                return await self._ask(client, request)

            yield ask

    @property
    def _key(self) -> str | None:
        return os.environ.get(KEY) if self.base_url is None else os.environ.get(COMPATIBLE_KEY) or "none"

    async def _ask(self, client: AsyncOpenAI, request: Request) -> Answer:
        import openai

        while True:
            way = self.way
            try:
                completion = await client.chat.completions.create(
                    model=self.name, messages=_messages(request), **self._options(request, way)
                )
            except openai.APIStatusError as error:
                rejected = error.status_code in ITEM_ERRORS and not self._answered and not too_long(error.message)
                if rejected and way + 1 < len(WAYS):
                    self.way = max(self.way, way + 1)
                    continue
                raise self._fault(error.status_code, error.message, error.code) from None
            except openai.APIConnectionError as error:  # time-outs among them
                raise BusyError(f"{self.id}: no answer ({type(error).__name__})") from None
            except (openai.APIError, ValueError) as error:
                raise BusyError(f"{self.id}: an answer that is none ({type(error).__name__})") from None
            try:
                answer = _answer(completion)
            except (AttributeError, TypeError, IndexError):  # 200, and then something else: a gateway's page
                raise BusyError(f"{self.id}: an answer that is none (no choices)") from None
            self._answered = True
            return answer

    def _options(self, request: Request, way: int) -> dict[str, Any]:
        form, logprobs = WAYS[way]
        options: dict[str, Any] = {"max_completion_tokens" if self.base_url is None else "max_tokens": request.max_tokens}
        if form == "json_schema":
            schema = {"name": request.schema_name, "schema": request.schema, "strict": True}
            options["response_format"] = {"type": form, "json_schema": schema}
        elif form == "json_object":
            options["response_format"] = {"type": form}
        return options | ({"logprobs": True, "top_logprobs": TOP} if logprobs else {})

    def _fault(self, status: int, message: str, code: object) -> Exception:
        line = f"{self.id}: {status}: {in_one_line(message, self._key)}"
        if code == "insufficient_quota":  # a 429 that no waiting helps
            return ProviderError(line)
        if status in BUSY_ERRORS or status >= 500:
            return BusyError(line)
        if status in ITEM_ERRORS and (self._answered or too_long(message)):
            return RejectedError(line)  # others were answered: it is this request, not the way all are put
        return ProviderError(line)


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"openai:NAME@{address}: expected an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        # the address is written to the run directory and into reports
        raise ConfigError(
            f"openai:NAME@{parts.scheme}://{parts.hostname}: expected an address without user, key or query; a key goes into "
            f"the environment variable {COMPATIBLE_KEY}"
        )


def _messages(request: Request) -> Any:
    roles = ("user", "assistant")
    turns = [{"role": roles[k % 2], "content": text} for k, text in enumerate(request.turns)]
    return [{"role": "system", "content": request.system}, *turns]


def _answer(completion: Any) -> Answer:
    choice, usage = completion.choices[0], completion.usage
    refused = bool(getattr(choice.message, "refusal", None)) or choice.finish_reason == "content_filter"
    stop: Stop = "refused" if refused else "truncated" if choice.finish_reason == "length" else "end"
    details = getattr(usage, "prompt_tokens_details", None)
    given, made = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    cached = getattr(details, "cached_tokens", None) or 0
    return Answer(choice.message.content or "", stop, given, made, cached, _around_level(choice))


def _around_level(choice: Any) -> tuple[Alternative, ...]:
    """Alternatives of the tokens up to the first digit: all that is needed for a level, a hundredth of what was sent."""
    places: list[Alternative] = []
    for place in getattr(choice.logprobs, "content", None) or []:
        places.append(Alternative(place.token, {}))
        if any(c.isdigit() for c in place.token):
            places[-1] = Alternative(place.token, {a.token: a.logprob for a in place.top_logprobs or []})
            break
    return tuple(places)
