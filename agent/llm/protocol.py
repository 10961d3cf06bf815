"""What passes between us and a provider of LLMs: a request, its answer, and the two ways in which one request can fail."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

from agent.errors import ProviderError, ReplyError

Stop = Literal["end", "truncated", "refused"]
PROTOCOL = 1
"""Part of every request's key: raised when the same request would be put differently on the wire."""


class BusyError(ProviderError):
    """The provider did not answer this request now (rate limit, overload, time-out, lost connection), after its SDK's own retries."""


class RejectedError(ReplyError):
    """The provider will never answer this request (too long, against its schema); others may be answered."""


class LaterError(ProviderError):
    """The request is written down and answered elsewhere; the others go on."""


_KEY = re.compile(r"\b(?:sk|key)-[\w*.-]{4,}")


def in_one_line(message: str, key: str | None) -> str:
    """A provider's message, shortened and without the key that some servers repeat: it ends up in logs."""
    if key and len(key) >= 8:  # "none" is a word
        message = message.replace(key, "[key]")
    return " ".join(_KEY.sub("[key]", message).split())[:300]


_TOO_LONG = re.compile(r"too (?:long|large)|context.{0,3}length|context window|maximum context", re.IGNORECASE)


def too_long(message: str) -> bool:
    """Whether a provider's message says that one request is too long for it; nothing is wrong with the others then."""
    return _TOO_LONG.search(message) is not None


@dataclass(frozen=True)
class Request:
    """One request, the same for every provider.

    Attributes:
        system: What the role is told once.
        turns: Texts of user and assistant in turn, the user's first.
        lead: How many characters of the first turn come back in other requests; a provider may cache them.
        schema_name, schema: JSON schema of the reply.
        max_tokens: Longest reply.
        labels: What may stand as the first value of the reply, as JSON writes it; scored where the provider can, never sent.
        repeat: Which reading of the same text this is; asked anew for every number.
    """

    system: str
    turns: tuple[str, ...]
    schema_name: str
    schema: dict[str, Any]
    max_tokens: int
    lead: int = 0
    repeat: int = 0
    labels: tuple[str, ...] = ()

    def key(self, provider: str) -> str:
        """Content hash of provider, model, everything that is sent, and the repeat: what is paid for once."""
        content = [PROTOCOL, provider, self.system, self.turns, self.schema, self.max_tokens, self.repeat]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def followed_by(self, reply: str, demand: str) -> Request:
        """The conversation gone on: what came back, and what is asked now."""
        return replace(self, turns=(*self.turns, reply or "(nothing)", demand))

    @cached_property
    def n_bytes(self) -> int:
        """Bytes sent, for estimates."""
        return sum(len(text.encode("utf-8", "replace")) for text in (self.system, *self.turns))


@dataclass(frozen=True)
class Alternative:
    """What could have stood at one place of a reply: token text to log-probability (nats)."""

    token: str
    top: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """What came back, and what it cost.

    Attributes:
        text: The reply.
        stop: Why it ended; `refused` when the provider or the LLM declined.
        input_tokens, output_tokens: As the provider counted them; `cached_tokens` of the input were read from its cache.
        alternatives: Log-probabilities token by token where the provider gives them, else empty.
    """

    text: str
    stop: Stop = "end"
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    alternatives: tuple[Alternative, ...] = ()

    def as_json(self) -> str:
        """For the store."""
        plain = vars(self) | {"alternatives": [vars(place) for place in self.alternatives]}
        return json.dumps(plain, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """From the store."""
        fields = json.loads(text)
        fields["alternatives"] = tuple(Alternative(**a) for a in fields["alternatives"])
        return cls(**fields)


def worded(value: object) -> str:
    """Text of a provider's JSON, empty for null.

    Raises:
        TypeError: It is something else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return value or ""


def counted(usage: Mapping[str, Any] | None, name: str) -> int:
    """Tokens that a provider's JSON says were used; 0 where it says nothing."""
    return int((usage or {}).get(name) or 0)


Ask = Callable[[Request], Awaitable[Answer]]
"""Put one request to the provider.

Raises:
    BusyError: Not answered now; may be asked again later.
    RejectedError: Will never be answered; the others may be.
    LaterError: Is written down and answered elsewhere.
    ProviderError: Nothing will be answered (no such LLM, key refused, account empty).
"""


class Provider(Protocol):
    """One way to reach an LLM."""

    @property
    def id(self) -> str:
        """Provider and name, e.g. `anthropic:NAME`."""

    timeout: float
    """Seconds for one attempt."""

    def session(self) -> AbstractAsyncContextManager[Ask]:
        """An open connection, for as long as one batch of requests takes."""


@runtime_checkable
class AnsweredElsewhere(Protocol):
    """A provider whose requests are written down and answered by somebody else, later."""

    def waiting(self) -> str:
        """What is waited for and what to do, in one line; empty when nothing is."""
