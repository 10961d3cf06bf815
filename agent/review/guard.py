"""Who may ask: only the browser that was given the token, only from our own pages, only under our own address.

A page of another origin can make a browser send requests to loopback, and with DNS rebinding even read the answers; other users of the
machine can connect as well. So the Host must be ours (no rebinding), a foreign Origin or fetch site is refused (no cross-site request),
every request must carry the token in a cookie that other sites cannot have sent (SameSite=Strict), and no CORS header is ever given.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 64 * 1024
"""Bytes of a form; the longest is an order parameter in new words."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # not no-referrer: with it browsers send forms with "Origin: null", which cannot be told from a foreign page
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the pages.

    Args:
        app: What is guarded.
        port: The port we listen on; part of the only addresses we answer to.
        token: The secret of this session.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self.app, self.token = app, token
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        # cookies know no ports: a name per port keeps two sessions apart
        self.cookie = f"review-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket: closed without an answer
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        status, reason = self.refusal(scope["method"], headers, asked)
        if status is not None:
            await _answer(send, status, reason)
        elif "token" in asked:
            cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, HTTPStatus.SEE_OTHER, "", {"location": "/", "set-cookie": cookie})
        else:
            await self.app(scope, receive, _with_headers(send))

    def refusal(self, method: str, headers: Mapping[str, str], asked: Mapping[str, list[str]]) -> tuple[HTTPStatus | None, str]:
        """Status and reason of a refusal; None when the request may pass."""
        if headers.get("host") not in self.hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "this is not the address that was printed"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            return HTTPStatus.FORBIDDEN, "asked from a page of another origin"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return HTTPStatus.FORBIDDEN, "asked from a page of another site"
        if method not in ("GET", "HEAD", "POST"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "expected GET or POST"
        if method == "POST" and origin is None:
            return HTTPStatus.FORBIDDEN, "a form without its origin"
        if not self._knows(asked["token"][0] if method == "GET" and asked.get("token") else self._cookie(headers)):
            return HTTPStatus.FORBIDDEN, "no token, or not the one of this session: open the address that discover review printed"
        if method == "POST" and not headers.get("content-length", "").isdigit():
            return HTTPStatus.LENGTH_REQUIRED, "a form without its length"
        if method == "POST" and int(headers["content-length"]) > MAX_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MAX_BODY} bytes"
        return None, ""

    def _knows(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _cookie(self, headers: Mapping[str, str]) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return found.value if found is not None else ""


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return guarded


async def _answer(send: Send, status: HTTPStatus, text: str, more: Mapping[str, str] | None = None) -> None:
    body = f"{status.value} {status.phrase}: {text}\n".encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **HEADERS, **(more or {})}
    await send({"type": "http.response.start", "status": status.value, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]})
    await send({"type": "http.response.body", "body": body})
