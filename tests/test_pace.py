from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.llm.asker import Asker
from agent.llm.pace import MOST, wait_of
from agent.llm.protocol import Answer, Request
from agent.llm.providers import make_provider
from tests.llm_server import LlmServer, Say, Seen
from tracing.judgements import JudgementStore

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry-after": "7"}, 7.0),
        (429, {"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        (529, {"Retry-After": "3"}, 0.0),
        (503, {"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        (429, {"retry-after": "Sat, 21 Nov 2026 11:59:30 GMT"}, 0.0),
        (429, {"retry-after": "86400"}, MOST),
        (200, {"retry-after": "7"}, 0.0),
        (200, {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:05Z"}, 5.0),
        (200, {"anthropic-ratelimit-requests-remaining": "1", "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:05Z"}, 0.0),
        (200, {"anthropic-ratelimit-output-tokens-remaining": "0", "anthropic-ratelimit-output-tokens-reset": "2026-11-21T12:00:09Z"}, 9.0),
        (200, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"}, 62.0),
        (200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        (200, {"x-ratelimit-remaining-tokens": "0"}, 0.0),
        (429, {"retry-after": "soon", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "later"}, 0.0),
        (429, {"retry-after": "-5"}, 0.0),
    ],
)
def test_the_wait_that_headers_ask_for(status: int, headers: dict[str, str], seconds: float) -> None:
    """Both providers' headers are read; what is unreadable, past or of a limit not used up asks for nothing; the longest wait counts."""
    import httpx2

    insensitive = httpx2.Headers(headers) if "Retry-After" not in headers else headers
    assert wait_of(status, insensitive, NOW) == pytest.approx(seconds)


def request(text: str) -> Request:
    """A small request."""
    return Request("be brief", (text,), "number", {"type": "object"}, 100)


def says_ok(seen: Seen) -> Say:
    """The same to everybody."""
    return Say("ok")


@pytest.mark.slow
def test_a_rate_limit_met_by_one_request_holds_the_others_back() -> None:
    """After a 429 the others wait until the request that was turned away comes again: without that all fifty would be through by then."""
    with LlmServer(brain=says_ok, retry_after_ms=400) as server:
        server.fault = lambda seen, attempt: "rate limit" if seen.turns[0] == "n9" and attempt == 0 else None
        asker = Asker(make_provider(server.openai, "--judge"), "judge", in_flight=4)
        answers = asker.ask([request(f"n{k}") for k in range(60)])
    assert all(answers)
    turns = [seen.turns[0] for seen in server.seen]
    first = turns.index("n9")
    # what leaves before the 429 has arrived cannot be held back, on a busy machine that is more than what was on its way with it
    assert turns.index("n9", first + 1) - first <= len(turns) // 2
    assert len(turns) == 61


def test_parallel_branches_share_the_limit_and_equal_requests(tmp_path: Path) -> None:
    """Three threads ask at the same time: never more in flight than allowed, and what two of them ask is put once."""
    with LlmServer(brain=says_ok, latency=0.05) as server, JudgementStore(tmp_path / "j.sqlite") as store:
        asker = Asker(make_provider(server.openai, "--judge"), "judge", in_flight=6, store=store)
        got: dict[int, list[Answer | None]] = {}

        def branch(number: int) -> None:
            got[number] = asker.ask([request(f"n{k}") for k in range(10 * number, 10 * number + 20)])

        threads = [threading.Thread(target=branch, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asker.close()
        assert len(store.usages()) == 40
    assert [len([a for a in got[k] if a is not None and a.text == "ok"]) for k in range(3)] == [20] * 3
    assert 1 < server.most_in_flight <= 6
    assert len(server.seen) == 40


def test_a_provider_whose_line_cannot_be_opened_is_an_error_for_everybody_who_waits() -> None:
    """What opening the connection raises reaches the one who asked, every time."""

    class Closed:
        id = "closed"
        timeout = 1.0

        def session(self) -> object:
            raise ConnectionError("no line")

    asker = Asker(Closed(), "judge")  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(ConnectionError, match="no line"):
            asker.ask([request("a")])
