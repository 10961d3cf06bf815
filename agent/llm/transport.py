"""What both SDKs' connections of this process share: one TLS context, and modules that the garbage collector leaves alone."""

from __future__ import annotations

import gc
import ssl
from functools import cache

COLLECTED_AFTER = (10_000, 20, 20)
"""Objects, and collections of the younger generation, until the garbage collector looks again."""


@cache
def tls() -> ssl.SSLContext:
    """The context both SDKs would make themselves, made once: making one reads a hundred certificates."""
    import httpx2

    return httpx2.create_ssl_context()


@cache
def settle() -> None:
    """Once, when an SDK is loaded: what is in memory now stays, so the garbage collector need not walk through it again.

    Each full collection stops every request on its way for .1 to .2 s otherwise, a twentieth of the time of a few thousand requests; the
    small ones, every 700 objects, cost another fiftieth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*(max(a, b) for a, b in zip(gc.get_threshold(), COLLECTED_AFTER, strict=True)))
