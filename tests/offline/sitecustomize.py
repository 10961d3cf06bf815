"""Refuses every socket beyond loopback, in the test process and (found on PYTHONPATH at start-up) in each Python process it starts.

Importing this installs the guard. It sees what goes through Python's `socket`; a native library with its own sockets is not seen,
which is why the environment of the tests also sets every offline switch such libraries have.
"""

from __future__ import annotations

import re
import sys

refused: list[str] = []
"""What was refused so far in this process; a test that leaves something here fails, even when the library swallowed the error."""

_LOOPBACK_ADDRESS = re.compile(r"(::ffff:)?127(\.\d{1,3}){3}")
_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOK_UPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


class BeyondLoopbackError(RuntimeError):
    """A test tried to reach another machine. Not an OSError: no retry loop takes it for a network that is down."""


def is_loopback(host: object) -> bool:
    """Whether a host name or address names this machine (None and "" are the wildcard of a listening socket)."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is None or name == "":
        return True
    return isinstance(name, str) and (name in {"localhost", "::1", "0.0.0.0", "::"} or _LOOPBACK_ADDRESS.fullmatch(name) is not None)


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if event in _CONNECTS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None
    elif event in _LOOK_UPS:
        host = arguments[0]
    else:
        return
    if not is_loopback(host):
        refused.append(f"{event} {host!r}")
        raise BeyondLoopbackError(f"tests reach loopback only, refused: {event} {host!r}")


sys.addaudithook(_guard)
