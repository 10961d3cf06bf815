"""One process per run directory: two would lose each other's results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tracing.errors import LockedError

LOCK_NAME = "run.lock"


@contextmanager
def run_lock(path: str | Path) -> Iterator[None]:
    """Hold the lock of a run while the block runs. The system releases it when the process dies, however it dies.

    Args:
        path: The run directory (the lock is `run.lock` inside), or the lock file itself.

    Raises:
        LockedError: Another process holds it.
    """
    place = Path(path)
    file = place / LOCK_NAME if place.is_dir() else place
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"{path}: expected to be the only process working here, found another one; wait for it or stop it") from error
    try:
        yield
    finally:
        lock.release()
