"""One TLS context for every connection of this process: making one reads a hundred certificates and takes longer than a request to it."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def tls() -> ssl.SSLContext:
    """The context both SDKs would make themselves, made once."""
    import httpx2

    return httpx2.create_ssl_context()
