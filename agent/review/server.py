"""Serves a review on loopback until it is done."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from agent.errors import ConfigError, RunLockedError
from agent.review.app import Pages, application
from agent.review.guard import Guard
from agent.review.session import Session
from tracing.errors import LockedError
from tracing.lock import run_lock

LOCK = "review.lock"


class ReviewServer:
    """A review on one folder.

    Args:
        folder: Folder of a discovery with findings.
        discovery: Digest that names the discovery in `review.jsonl`.
        port: Port on 127.0.0.1; 0 takes a free one.
        reviewer: Written beside every decision.
        waiting: Whether the loop waits for this review.

    Raises:
        ConfigError: The port is taken.
        FindingsFileError: No findings there.
    """

    def __init__(self, folder: Path, discovery: str, port: int = 0, reviewer: str = "", waiting: bool = False) -> None:
        import uvicorn

        self.folder = folder
        self.session = Session(folder, discovery, reviewer)
        self.done = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind(("127.0.0.1", port))
        except OSError as error:
            self.socket.close()
            raise ConfigError(f"--port {port}: expected a free port ({error.strerror}); leave it out to take any") from None
        self.port = int(self.socket.getsockname()[1])
        self.token = secrets.token_urlsafe(32)
        pages = Pages(self.session, self._finish, waiting)
        guarded = Guard(application(pages), self.port, self.token)
        # no access log: the first address holds the token
        config = uvicorn.Config(guarded, log_level="error", access_log=False, server_header=False, lifespan="off", ws="none")
        self.server = uvicorn.Server(config)

    @property
    def address(self) -> str:
        """What the reviewer opens; holds the token."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def run(self, announce: Callable[[str], None]) -> bool:
        """Serve until the review is done or Ctrl-C.

        Args:
            announce: Called with the address once it can be opened.

        Returns:
            Whether the reviewer said that the review is done.

        Raises:
            RunLockedError: Another review is open on this folder.
        """
        try:
            with self.socket, run_lock(self.folder / LOCK):
                self.socket.listen()
                announce(self.address)
                self.server.run(sockets=[self.socket])
        except LockedError:
            raise RunLockedError(f"{self.folder}: expected no other review of it, found one open; close it first") from None
        except KeyboardInterrupt:
            return self.done
        return self.done

    def stop(self) -> None:
        """Stop serving from another thread."""
        self.server.should_exit = True

    def _finish(self) -> None:
        self.done = True
        self.stop()
