"""Anthropic's Messages API through its own SDK. Key from ANTHROPIC_API_KEY, address from ANTHROPIC_BASE_URL when set."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError, ProviderError
from agent.llm.protocol import Answer, Ask, BusyError, RejectedError, Request, Stop, in_one_line, too_long

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
    """

    name: str
    timeout: float = 120.0
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
        from anthropic import AsyncAnthropic

        async with AsyncAnthropic(api_key=os.environ.get(KEY), timeout=self.timeout) as client:

            async def ask(request: Request) -> Answer:
                return await self._ask(client, request)

            yield ask

    async def _ask(self, client: AsyncAnthropic, request: Request) -> Answer:
        import anthropic

        try:
            message = await client.messages.create(
                model=self.name,
                max_tokens=request.max_tokens,
                system=request.system,
                messages=_messages(request),
                output_config={"format": {"type": "json_schema", "schema": request.schema}},
            )
        except anthropic.APIStatusError as error:
            raise self._fault(error.status_code, error.message) from None
        except anthropic.APIConnectionError as error:  # time-outs among them
            raise BusyError(f"{self.id}: no answer ({type(error).__name__})") from None
        except (anthropic.APIError, ValueError) as error:
            raise BusyError(f"{self.id}: an answer that is none ({type(error).__name__})") from None
        try:
            answer = _answer(message)
        except (AttributeError, TypeError):  # 200, and then something else: a gateway's page
            raise BusyError(f"{self.id}: an answer that is none (no message)") from None
        self._answered = True
        return answer

    def _fault(self, status: int, message: str) -> Exception:
        line = f"{self.id}: {status}: {in_one_line(message, os.environ.get(KEY))}"
        if status in BUSY_ERRORS or status >= 500:
            return BusyError(line)
        if status in ITEM_ERRORS and (self._answered or too_long(message)):
            return RejectedError(line)  # others were answered: it is this request, not the way all are put
        return ProviderError(line)


def _messages(request: Request) -> Any:
    first, *later = request.turns
    blocks: list[dict[str, Any]] = [{"type": "text", "text": first[request.lead :]}]
    if request.lead:
        # the response stands first and comes back with every question about it: its tokens are paid once at full price
        blocks.insert(0, {"type": "text", "text": first[: request.lead], "cache_control": {"type": "ephemeral"}})
    roles = ("assistant", "user")
    return [{"role": "user", "content": blocks}, *({"role": roles[k % 2], "content": text} for k, text in enumerate(later))]


def _answer(message: Any) -> Answer:
    text = "".join(block.text for block in message.content if block.type == "text")
    stops: dict[str, Stop] = {"refusal": "refused", "max_tokens": "truncated", "model_context_window_exceeded": "truncated"}
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    whole = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
    return Answer(text, stops.get(message.stop_reason or "", "end"), whole, usage.output_tokens, cached)
