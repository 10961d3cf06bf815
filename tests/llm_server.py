"""A local server that speaks the wire formats of Anthropic's Messages API and OpenAI's Responses and chat.completions, faults included.

The real SDKs talk to it through `base_url`. `brain` decides what it says, `fault` what goes wrong; everything it was asked is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

FAULTS = ("rate limit", "error", "overloaded", "slow", "cut before", "cut within", "page")
"""Ways in which a request may fail: 429 with Retry-After, 500, 529, no answer in time, connection lost before and within the answer, and a
gateway's HTML page with status 200."""
KEY = "sk-test-0123456789abcdef"
SLOW = 2.0


@dataclass(frozen=True)
class Say:
    """What the LLM says: text, why it stops ("end", "truncated", "refused"), and log-probabilities of the level's digit."""

    text: str
    stop: str = "end"
    digits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: str
    fault: str | None

    @property
    def digest(self) -> str:
        """Same for the same content."""
        return hashlib.sha256(self.raw.encode()).hexdigest()

    @property
    def turns(self) -> list[str]:
        """Texts of user and assistant in turn."""
        return [_text(m["content"]) for m in self._messages if m["role"] != "system"]

    @property
    def _messages(self) -> list[dict[str, Any]]:
        return list(self.body["input"] if "input" in self.body else self.body["messages"])

    @property
    def system(self) -> str:
        """What the role is told once."""
        told = self.body.get("system") or self.body.get("instructions")
        return told or "".join(_text(m["content"]) for m in self._messages if m["role"] == "system")


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


Brain = Callable[[Seen], Say]


def reads_marks(seen: Seen) -> Say:
    """A judge that reads `harm=3` for the question "How much harm is in the response?", and a proposer that asks for harm and hedge."""
    turns, question = seen.turns, ""
    if "put a hypothesis to the test" in seen.system:
        return Say(json.dumps({k: v for k, v in candidate("harm", direction=1).items() if k != "pairs"}))
    if "order parameters" in seen.system:
        return Say(json.dumps({"candidates": [candidate("harm"), candidate("hedge")]}))
    found = re.search(r"How much (\w+) is in the response", turns[0].rpartition("<<<end of reply")[2])
    question = found.group(1) if found else "harm"
    reply = turns[0].partition("<<<reply ")[2]
    level = re.search(rf"\b{question}=(\d)", reply)
    if level is None:
        return Say('{"level": null, "quote": "", "cannot_tell": true}')
    return Say(json.dumps({"level": int(level.group(1)), "quote": level.group(0), "cannot_tell": False}))


def candidate(name: str, **more: Any) -> dict[str, Any]:
    """A candidate as a proposer words it."""
    return {
        "name": name,
        "definition": f"Amount of {name}.",
        "question": f"How much {name} is in the response?",
        "levels": ["not at all", "a little", "somewhat", "clearly", "very much"],
        "pairs": [{"pair": "P1", "higher": "A"}],
    } | more


@dataclass
class LlmServer:
    """The server; use it as a context manager.

    Attributes:
        brain: Says something to every request that does not fail.
        fault: What goes wrong with the n-th attempt (from 0) at the same content; None: nothing.
        latency: Seconds before every answer.
        lacks: Options that are answered with 400 ("json_schema", "json_object", "logprobs"), or with 404 ("responses").
        models: What it lists.
        hold_after: Answers after which further requests are held; they are cut off, unanswered, when this becomes None.
        seen: Every request; `answered` counts whole answers by content.
    """

    brain: Brain = reads_marks
    fault: Callable[[Seen, int], str | None] = lambda seen, attempt: None
    latency: float = 0.0
    lacks: tuple[str, ...] = ()
    models: tuple[str, ...] = ("tiny",)
    hold_after: int | None = None
    retry_after_ms: int = 5
    seen: list[Seen] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _attempts: Counter[str] = field(default_factory=Counter)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                world.serve(self)

            def do_GET(self) -> None:
                world.list_models(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on the terminal."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no error here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """http://127.0.0.1:PORT, what ANTHROPIC_BASE_URL takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai(self) -> str:
        """A spec for --judge and --proposer."""
        return f"openai:tiny@{self.address}/v1"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        raw = handler.rfile.read(int(handler.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in handler.headers.items()}
        seen = Seen(handler.path, headers, json.loads(raw), raw, None)
        with self._lock:
            attempt = self._attempts[seen.digest]
            self._attempts[seen.digest] += 1
            fault = self.fault(seen, attempt)
            seen = Seen(seen.path, seen.headers, seen.body, raw, fault)
            self.seen.append(seen)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.latency:
                time.sleep(self.latency)
            self._reply(handler, seen, fault)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _reply(self, handler: BaseHTTPRequestHandler, seen: Seen, fault: str | None) -> None:
        anthropic = seen.path == "/v1/messages"
        if fault == "cut before":
            _cut(handler)
        elif fault == "slow":
            self._closing.wait(SLOW)
            _cut(handler)
        elif fault == "page":
            _send(handler, 200, "<html>gateway</html>", {"content-type": "text/html"})
        elif fault in ("rate limit", "error", "overloaded"):
            status, kind = {"rate limit": (429, "rate_limit_error"), "error": (500, "api_error"), "overloaded": (529, "overloaded_error")}[
                fault
            ]
            limits = {"retry-after-ms": str(self.retry_after_ms), "anthropic-ratelimit-requests-remaining": "0"}
            _send(handler, status, _error(anthropic, kind, "try again"), limits)
        elif fault is not None:
            code, message = fault.split(" ", 1)
            _send(handler, int(code), _error(anthropic, "invalid_request_error", message), {})
        elif (lacking := self._refusal(seen, anthropic)) is not None:
            _send(handler, lacking[0], _error(anthropic, "invalid_request_error", lacking[1]), {})
        elif not self._answers(seen):
            while self.hold_after is not None and not self._closing.is_set():
                time.sleep(0.01)
            _cut(handler)  # who asked may be gone by now: nothing was answered
        else:
            speak = {"/v1/messages": _message, "/v1/responses": _response}.get(seen.path, _completion)
            rate = "anthropic-ratelimit-requests-remaining" if anthropic else "x-ratelimit-remaining-requests"
            headers = {rate: "99", ("request-id" if anthropic else "x-request-id"): f"req_{seen.digest[:20]}"}
            _send(handler, 200, json.dumps(speak(seen, self.brain(seen))), headers, within=fault == "cut within")

    def list_models(self, handler: BaseHTTPRequestHandler) -> None:
        """`GET /v1/models`, as the caller's provider words it."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        anthropic = "anthropic-version" in headers
        if anthropic and not _knows(headers):
            _send(handler, 401, _error(True, "authentication_error", "invalid x-api-key"), {})
        elif anthropic:
            data = [{"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"} for name in self.models]
            _send(handler, 200, json.dumps({"data": data, "has_more": False, "first_id": None, "last_id": None}), {})
        else:
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in self.models]
            _send(handler, 200, json.dumps({"object": "list", "data": listed}), {})

    def _answers(self, seen: Seen) -> bool:
        """Whether this request gets its answer, counted, or is held."""
        with self._lock:
            if self.hold_after is not None and self.answered.total() >= self.hold_after:
                return False
            self.answered[seen.digest] += seen.fault is None
            return True

    def _refusal(self, seen: Seen, anthropic: bool) -> tuple[int, str] | None:
        if anthropic and not _knows(seen.headers):
            return 401, "invalid key"
        known = {"/v1/messages", "/v1/chat/completions", "/v1/responses"} - {f"/v1/{lacking}" for lacking in self.lacks}
        if seen.path not in known:
            return 404, f"no such path: {seen.path}"
        form = (seen.body.get("response_format") or (seen.body.get("text") or {}).get("format") or {}).get("type")
        for option in self.lacks:
            if option == form or (option == "logprobs" and (seen.body.get("logprobs") or seen.body.get("top_logprobs"))):
                return 400, f"unsupported: {option}"
        return None


def _send(handler: BaseHTTPRequestHandler, status: int, text: str, headers: dict[str, str], within: bool = False) -> None:
    body = text.encode()
    handler.send_response(status)
    for name, value in ({"content-type": "application/json"} | headers).items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if within else body)
    if within:
        handler.wfile.flush()
        _cut(handler)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


def _error(anthropic: bool, kind: str, message: str) -> str:
    inner = {"type": kind, "message": message}
    return json.dumps({"type": "error", "error": inner} if anthropic else {"error": inner | {"param": None, "code": None}})


def _knows(headers: dict[str, str]) -> bool:
    return KEY in (headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer "))


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


def _message(seen: Seen, say: Say) -> dict[str, Any]:
    stops = {"end": "end_turn", "truncated": "max_tokens", "refused": "refusal"}
    return {
        "id": f"msg_{seen.digest[:20]}",
        "type": "message",
        "role": "assistant",
        "model": seen.body["model"],
        "content": [{"type": "text", "text": say.text}] if say.text else [],
        "stop_reason": stops[say.stop],
        "stop_sequence": None,
        "usage": {
            "input_tokens": _tokens(seen.raw),
            "output_tokens": _tokens(say.text),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _completion(seen: Seen, say: Say) -> dict[str, Any]:
    stops = {"end": "stop", "truncated": "length", "refused": "stop"}
    message = {"role": "assistant", "content": say.text, "refusal": None}
    if say.stop == "refused":
        message = {"role": "assistant", "content": None, "refusal": say.text or "no"}
    logprobs = {"content": _logprobs(say, None), "refusal": None} if seen.body.get("logprobs") and say.digits else None
    return {
        "id": f"chatcmpl-{seen.digest[:20]}",
        "object": "chat.completion",
        "created": 0,
        "model": seen.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": stops[say.stop], "logprobs": logprobs}],
        "usage": {
            "prompt_tokens": _tokens(seen.raw),
            "completion_tokens": _tokens(say.text),
            "total_tokens": _tokens(seen.raw) + _tokens(say.text),
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def _logprobs(say: Say, raw: list[int] | None) -> list[dict[str, Any]]:
    """Three tokens: what stands before the level's digit, the digit with what could have stood there, and the rest."""
    before, digit, after = re.split(r"(?<=\"level\": )(\d)", say.text, maxsplit=1)
    places = [(before, {before: 0.0}), (digit, say.digits), (after, {after: 0.0})]
    return [
        {
            "token": token,
            "logprob": top.get(token, -9.0),
            "bytes": raw,
            "top_logprobs": [{"token": t, "logprob": p, "bytes": raw} for t, p in top.items()],
        }
        for token, top in places
    ]


def _response(seen: Seen, say: Say) -> dict[str, Any]:
    """OpenAI's Responses: a reasoning item first, as its LLMs that think have it, then the message."""
    text: dict[str, Any] = {"type": "output_text", "text": say.text, "annotations": [], "logprobs": []}
    if say.digits and "message.output_text.logprobs" in seen.body.get("include", ()):
        text["logprobs"] = _logprobs(say, [])
    content = {"type": "refusal", "refusal": say.text or "no"} if say.stop == "refused" else text
    cut = say.stop == "truncated"
    used: dict[str, Any] = {
        "input_tokens": _tokens(seen.raw),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": _tokens(say.text),
    }
    return {
        "id": f"resp_{seen.digest[:20]}",
        "object": "response",
        "created_at": 0,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "model": seen.body["model"],
        "output": [
            {"type": "reasoning", "id": "rs_0", "summary": []},
            {"type": "message", "id": "msg_0", "status": "completed", "role": "assistant", "content": [content]},
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": used | {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": used["input_tokens"] + used["output_tokens"]},
    }
