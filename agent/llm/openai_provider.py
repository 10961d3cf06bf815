"""OpenAI (Responses, else chat.completions) and every server that speaks chat.completions, through OpenAI's SDK.

Keys: OPENAI_API_KEY for OpenAI itself. A server given by its address gets OPENAI_COMPATIBLE_API_KEY (or none), so that a key for
OpenAI never leaves for somebody else's machine.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.errors import ConfigError, ProviderError
from agent.llm import chat_wire, responses_wire
from agent.llm.pace import Pace
from agent.llm.protocol import Answer, Ask, BusyError, RejectedError, Request, in_one_line, too_long
from agent.llm.transport import settle, tls

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY, COMPATIBLE_KEY = "OPENAI_API_KEY", "OPENAI_COMPATIBLE_API_KEY"
ITEM_ERRORS = (400, 413, 422)
BUSY_ERRORS = (408, 409, 425, 429)
NO_SUCH_PATH = (404, 405)


@dataclass(frozen=True)
class Way:
    """One way of putting a request.

    Attributes:
        responses: To `/responses` instead of `/chat/completions`.
        form: How the reply is asked for.
        logprobs: Whether log-probabilities are asked for.
    """

    responses: bool
    form: chat_wire.Form
    logprobs: bool


WAYS = tuple(Way(False, *way) for way in (("json_schema", True), ("json_schema", False), ("json_object", False), ("text", False)))
"""From the best downwards; a server that rejects one is asked the next way."""
OPENAI_WAYS = (Way(True, "json_schema", True), Way(True, "json_schema", False), *WAYS)


@dataclass
class OpenAIProvider:
    """An LLM of OpenAI or behind a compatible server.

    The SDK retries twice by itself and waits as long as Retry-After says; nothing is stacked on top. Sampling is the LLM's own default.
    What the server can do is learnt from the first requests: what it rejects is left out, what it ignores is done without.

    Attributes:
        name: As the server lists it.
        base_url: Address of a compatible server, ending in /v1; None for OpenAI.
        timeout: Seconds for one attempt.
        pace: Holds every request back while rate limits ask for it.
    """

    name: str
    base_url: str | None = None
    timeout: float = 120.0
    pace: Pace = field(default_factory=Pace)
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
        from openai import AsyncOpenAI, DefaultAioHttpClient

        settle()
        connections = DefaultAioHttpClient(verify=tls(), event_hooks=self.pace.hooks)
        async with AsyncOpenAI(api_key=self._key, base_url=self.base_url, timeout=self.timeout, http_client=connections) as client:

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
                found = await self._put(client, request, self.ways[way])
            except openai.APIStatusError as error:
                below = self._way_below(way, error.status_code, error.message, error.code)
                if below is not None:
                    self.way = max(self.way, below)
                    continue
                raise self._fault(error.status_code, error.message, error.code) from None
            except openai.APIConnectionError as error:  # time-outs among them
                raise BusyError(f"{self.id}: no answer ({type(error).__name__})") from None
            except (openai.APIError, ValueError) as error:
                raise BusyError(f"{self.id}: an answer that is none ({type(error).__name__})") from None
            self._answered = True
            return found

    async def _put(self, client: AsyncOpenAI, request: Request, way: Way) -> Answer:
        length = "max_completion_tokens" if self.base_url is None else "max_tokens"
        came: Any
        # JSON both ways: `create` and the SDK's types walk through every field, a third of a call's time. A whole address: the SDK
        # takes another tenth to put one together
        root = str(client.base_url).rstrip("/")
        if way.responses:
            came = await client.post(f"{root}/responses", cast_to=object, body=responses_wire.body(request, self.name, way.logprobs))
        else:
            body = chat_wire.body(request, self.name, way.form, way.logprobs, length)
            came = await client.post(f"{root}/chat/completions", cast_to=object, body=body)
        try:
            return responses_wire.answer(came) if way.responses else chat_wire.answer(came)
        except (AttributeError, TypeError, IndexError, KeyError):  # 200, and then something else: a gateway's page
            raise BusyError(f"{self.id}: an answer that is none (no reply in it)") from None

    @property
    def ways(self) -> tuple[Way, ...]:
        """How this server may be asked, from the best downwards."""
        return OPENAI_WAYS if self.base_url is None else WAYS

    def _way_below(self, way: int, status: int, message: str, code: object) -> int | None:
        """The way to try after a rejection; None when it is this request, or everything, that is rejected."""
        if self._answered or too_long(message):
            return None
        if status in NO_SUCH_PATH and self.ways[way].responses and code != "model_not_found":
            return next(k for k, other in enumerate(self.ways) if not other.responses)
        return way + 1 if status in ITEM_ERRORS and way + 1 < len(self.ways) else None

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


def models(address: str | None, timeout: float) -> list[str]:
    """Names of the LLMs that OpenAI, or the server at an address, lists; whatever the SDK raises when there is no answer."""
    from openai import OpenAI

    key = os.environ.get(KEY) if address is None else os.environ.get(COMPATIBLE_KEY) or "none"
    with OpenAI(api_key=key, base_url=address, timeout=timeout, max_retries=0) as client:
        return [model.id for model in client.models.list()]
