"""Anthropic's Messages API through its own SDK. Key from ANTHROPIC_API_KEY, address from ANTHROPIC_BASE_URL when set."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError, ProviderError
from agent.llm.messages_wire import answer, body
from agent.llm.pace import Pace
from agent.llm.protocol import Answer, Ask, BusyError, RejectedError, Request, in_one_line, too_long
from agent.llm.transport import settle, tls

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

KEY = "ANTHROPIC_API_KEY"
ITEM_ERRORS = (400, 413, 422)
BUSY_ERRORS = (408, 409, 425, 429)


@dataclass
class AnthropicProvider:
    """An LLM of Anthropic.

    The SDK retries twice by itself and waits as long as Retry-After says; nothing is stacked on top. Sampling is the LLM's own default.

    Attributes:
        name: As in the provider's list; never a constant of ours.
        timeout: Seconds for one attempt.
        pace: Holds every request back while rate limits ask for it.
    """

    name: str
    timeout: float = 120.0
    pace: Pace = field(default_factory=Pace)
    _answered: bool = False

    def __post_init__(self) -> None:
        if not os.environ.get(KEY):
            raise ConfigError(f"{self.id}: expected a key in the environment variable {KEY}, found none")

    @property
    def id(self) -> str:
        """`anthropic:NAME`."""
        return f"anthropic:{self.name}"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """An open client."""
        from anthropic import AsyncAnthropic, DefaultAioHttpClient

        settle()
        connections = DefaultAioHttpClient(verify=tls(), event_hooks=self.pace.hooks)
        async with AsyncAnthropic(api_key=os.environ.get(KEY), timeout=self.timeout, http_client=connections) as client:

            async def ask(request: Request) -> Answer:
                return await self._ask(client, request)

            yield ask

    async def _ask(self, client: AsyncAnthropic, request: Request) -> Answer:
        import anthropic

        try:
            # JSON both ways: `create` and the SDK's types walk through every field, a third of a call's time. A whole address: the
            # SDK takes another tenth to put one together
            message: Any = await client.post(
                str(client.base_url).rstrip("/") + "/v1/messages", cast_to=object, body=body(request, self.name)
            )
        except anthropic.APIStatusError as error:
            raise self._fault(error.status_code, error.message) from None
        except anthropic.APIConnectionError as error:  # time-outs among them
            raise BusyError(f"{self.id}: no answer ({type(error).__name__})") from None
        except (anthropic.APIError, ValueError) as error:
            raise BusyError(f"{self.id}: an answer that is none ({type(error).__name__})") from None
        try:
            found = answer(message)
        except (AttributeError, TypeError, KeyError):  # 200, and then something else: a gateway's page
            raise BusyError(f"{self.id}: an answer that is none (no message)") from None
        self._answered = True
        return found

    def _fault(self, status: int, message: str) -> Exception:
        line = f"{self.id}: {status}: {in_one_line(message, os.environ.get(KEY))}"
        if status in BUSY_ERRORS or status >= 500:
            return BusyError(line)
        if status in ITEM_ERRORS and (self._answered or too_long(message)):
            return RejectedError(line)  # others were answered: it is this request, not the way all are put
        return ProviderError(line)


def models(timeout: float) -> list[str]:
    """Names of the LLMs that the key in the environment may use; whatever the SDK raises when there is no answer."""
    from anthropic import Anthropic

    with Anthropic(api_key=os.environ.get(KEY), timeout=timeout, max_retries=0) as client:
        return [model.id for model in client.models.list(limit=100)]
