from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.offline import sitecustomize as loopback


def test_a_socket_beyond_loopback_is_refused() -> None:
    """Connecting to another machine raises at once, without a packet, and is remembered."""
    with socket.socket() as outward, pytest.raises(loopback.BeyondLoopbackError, match=r"192\.0\.2\.1"):
        outward.connect(("192.0.2.1", 80))
    assert loopback.refused == ["socket.connect '192.0.2.1'"]
    loopback.refused.clear()


def test_looking_up_a_foreign_name_is_refused() -> None:
    """No DNS query leaves the machine."""
    with pytest.raises(loopback.BeyondLoopbackError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)
    loopback.refused.clear()


def test_loopback_works() -> None:
    """A server of the test's own on loopback can be reached by address and by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            with socket.create_connection((host, server.getsockname()[1]), timeout=5):
                pass


def test_child_processes_are_guarded_too() -> None:
    """A command run by a test cannot reach another machine either."""
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert "tests reach loopback only" in child.stderr


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        (b"localhost", True),
        ("::1", True),
        (None, True),
        ("127.0.0.1.example.org", False),
        ("10.0.0.1", False),
        (7, False),
    ],
)
def test_only_this_machine_counts_as_loopback(host: object, expected: bool) -> None:
    """A foreign name that begins like a loopback address is foreign."""
    assert loopback.is_loopback(host) is expected
