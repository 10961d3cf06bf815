"""When the next request may leave: what a provider's rate-limit headers ask for holds for every request, not for the one that met it.

Both SDKs wait before they repeat a request that was turned away; meanwhile others would be turned away as well, and with many in
flight a limit looks like a failing provider. So the first that learns of it holds them all back, repetitions of the SDK's own included.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MOST = 120.0
"""Seconds waited at most for one header."""
TURNED_AWAY = (429, 503, 529)
_USED_UP = re.compile(r"anthropic-ratelimit-(.+)-remaining|x-ratelimit-remaining-(.+)")
_PART = re.compile(r"([\d.]+)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def wait_of(status: int, headers: Mapping[str, str], now: datetime) -> float:
    """Seconds that an answer asks everybody to wait, in [0, `MOST`].

    Retry-After (seconds or a date) and retry-after-ms of an answer that turns a request away; of every answer, the reset of a
    limit of which nothing remains: `anthropic-ratelimit-KIND-remaining: 0` with `-reset` (RFC 3339), `x-ratelimit-remaining-KIND: 0`
    with `x-ratelimit-reset-KIND` (such as 6m0s or 12ms). What cannot be read asks for nothing.
    """
    asked = [0.0]
    if status in TURNED_AWAY:
        milliseconds = _number(headers.get("retry-after-ms"))
        asked.append(_until(headers.get("retry-after"), now) if milliseconds is None else milliseconds / 1000)
    for name, value in headers.items():
        found = _USED_UP.fullmatch(name.lower())
        if found and value.strip() == "0":
            kind = found[1] or found[2]
            reset = f"anthropic-ratelimit-{kind}-reset" if found[1] else f"x-ratelimit-reset-{kind}"
            asked.append(_until(headers.get(reset), now))
    return min(max(asked), MOST)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if value >= 0 else None


def _until(text: str | None, now: datetime) -> float:
    """Seconds from now to a moment, or of a duration; 0 for what is neither, or past."""
    if not text:
        return 0.0
    if (seconds := _number(text)) is not None:
        return seconds
    parts = _PART.findall(text)
    if parts and "".join(a + b for a, b in parts) == text.strip():
        return sum(float(a) * _SECONDS[b] for a, b in parts)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except ValueError:
            continue
        return max(((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds(), 0.0)
    return 0.0


class Pace:
    """Holds requests back while a provider wants that; `hooks` are event hooks of an httpx client."""

    def __init__(self) -> None:
        self._not_before = 0.0

    @property
    def hooks(self) -> dict[str, list[Any]]:
        """For `event_hooks`: wait before every request, listen to every answer."""
        return {"request": [self._leave], "response": [self._hear]}

    async def _leave(self, request: object) -> None:
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _hear(self, response: Any) -> None:
        if response.status_code not in TURNED_AWAY and not any(b"ratelimit" in name.lower() for name, _ in response.headers.raw):
            return
        wait = wait_of(response.status_code, response.headers, datetime.now(UTC))
        self._not_before = max(self._not_before, time.monotonic() + wait)
