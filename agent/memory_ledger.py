"""The ledger: an append-only JSONL file that several processes write at once and that survives kill -9.

Every append holds the lock, reads what others wrote meanwhile, writes whole lines in one go and fsyncs before it returns: an
event whose `append` returned is on disk. A line that does not fit its checksum is reported with its number, copied to a
quarantine file and skipped; a last line that was cut short was never acknowledged, so it is moved there and cut off.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from agent.errors import MemoryStoreError
from agent.memory_events import LEDGER_FORMAT, LEDGER_VERSION, StoredEvent, check_seal, decode, header, read_header

LOCK_POLL_SECONDS = 0.002
SHOWN_LINES = 10


@dataclass(frozen=True)
class DamagedLine:
    """A line that could not be read: its number (from 1), what is wrong with it, and its bytes."""

    number: int
    reason: str
    raw: bytes


class Ledger:
    """One ledger file, opened for reading and appending.

    Attributes:
        path: The JSONL file.
        quarantine: Where damaged lines are kept (`ledger.damaged.jsonl` beside it).
        events: All readable events in file order, each id once.
        damaged: Lines that could not be read.
        starts: How often reading started from the first line; rises when the file is replaced under us.
    """

    def __init__(self, path: Path, on_notice: Callable[[str], None]) -> None:
        """Open or create the ledger and read it.

        Raises:
            MemoryStoreError: The folder or file cannot be used, is of a newer version, or is no ledger.
        """
        self.path = path
        self.quarantine = path.with_name(path.stem + ".damaged.jsonl")
        self.events: list[StoredEvent] = []
        self.damaged: list[DamagedLine] = []
        self._on_notice = on_notice
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._known: set[str] = set()
        self._offset = self._lines = self.starts = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
            self._file = self._open_file()
        except OSError as problem:
            raise MemoryStoreError(f"the memory at {path.parent} cannot be opened: {_why(problem)}; choose another with --memory") from None
        self.refresh()

    def __len__(self) -> int:
        """Readable events."""
        return len(self.events)

    def close(self) -> None:
        """Release the files; the ledger cannot be used afterwards."""
        for name in ("_file", "_lock_file"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)

    def __contains__(self, event_id: str) -> bool:
        """Whether an event with this content hash is in the part read so far."""
        return event_id in self._known

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger against other processes and threads; re-entrant."""
        with self._thread_lock:
            if self._lock_file < 0:
                raise MemoryStoreError(f"the memory at {self.path.parent} is closed")
            if self._depth == 0:
                lock_descriptor(self._lock_file, poll_interval=LOCK_POLL_SECONDS)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    unlock_descriptor(self._lock_file)

    def refresh(self) -> list[StoredEvent]:
        """Read what was appended since the last look, by this or any other process.

        Returns:
            The new events, in file order.
        """
        with self.locked():
            return self._read_tail()

    def append(self, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """Write the events that are not there yet and fsync once.

        Returns:
            The events that were new; when this returns they are on disk.

        Raises:
            MemoryStoreError: The file cannot be written (the part written is taken back).
        """
        with self.locked():
            self._read_tail()
            fresh = {stored.id: stored for stored in events if stored.id not in self._known}
            if not fresh:
                return []
            new = list(fresh.values())
            payload = b"".join(stored.line + b"\n" for stored in new)
            self._write(payload)
            self._offset += len(payload)
            self._lines += len(new)
            self.events.extend(new)
            self._known.update(fresh)
            return new

    def _open_file(self) -> int:
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        if is_new:
            _sync_folder(self.path.parent)
        return descriptor

    def _write(self, payload: bytes) -> None:
        try:
            written = os.write(self._file, payload)
            if written < len(payload):
                raise OSError(28, "no space left on the device")
            os.fsync(self._file)
        except OSError as problem:
            os.ftruncate(self._file, self._offset)
            raise MemoryStoreError(f"{self.path} cannot be written: {_why(problem)}; nothing of this append was kept") from None

    def _read_tail(self) -> list[StoredEvent]:
        size = self._reopen_if_replaced()
        if size == self._offset:
            if size == 0:
                self._start()
            return []
        tail = os.pread(self._file, size - self._offset, self._offset)
        first_look = self._offset == 0
        tail = self._repair_last_line(tail)
        numbered = list(enumerate(tail.split(b"\n")[:-1], start=self._lines + 1))
        self._offset += len(tail)
        self._lines += len(numbered)
        new: list[StoredEvent] = []
        damaged: list[DamagedLine] = []
        for number, line in numbered:
            self._read_line(number, line, new, damaged)
        if first_look and numbered and len(damaged) == len(numbered):
            raise MemoryStoreError(f"{self.path} is not a memory ledger: none of its {len(numbered)} lines can be read as one")
        self._keep_aside(damaged)
        return new

    def _read_line(self, number: int, line: bytes, new: list[StoredEvent], damaged: list[DamagedLine]) -> None:
        try:
            if number == 1:
                self._check_header(line)
                return
            stored = decode(line)
        except ValueError as problem:
            damaged.append(DamagedLine(number, str(problem), line))
            return
        if stored.id not in self._known:
            self._known.add(stored.id)
            self.events.append(stored)
            new.append(stored)

    def _check_header(self, line: bytes) -> None:
        found, version = read_header(line)
        if found != LEDGER_FORMAT:
            raise ValueError(f"expected the header of format {LEDGER_FORMAT!r}")
        if version > LEDGER_VERSION:
            raise MemoryStoreError(
                f"{self.path} has format version {version}, this program reads up to {LEDGER_VERSION}: upgrade order-parameter-discovery"
            )

    def _reopen_if_replaced(self) -> int:
        """Size of the file; start over when it was deleted, replaced or shortened under us."""
        held = os.fstat(self._file)
        try:
            there = os.stat(self.path)
            replaced = (there.st_ino, there.st_dev) != (held.st_ino, held.st_dev)
        except FileNotFoundError:
            replaced = True
        if replaced:
            os.close(self._file)
            self._file = self._open_file()
            held = os.fstat(self._file)
        if replaced or held.st_size < self._offset:
            self.events.clear()
            self.damaged.clear()
            self._known.clear()
            self._offset = self._lines = 0
            self.starts += 1
        return held.st_size

    def _start(self) -> None:
        payload = header() + b"\n"
        self._write(payload)
        self._offset, self._lines = len(payload), 1

    def _repair_last_line(self, tail: bytes) -> bytes:
        """End the file with a line break: a whole last line gets one, a cut one is kept aside and removed."""
        rest = tail.rpartition(b"\n")[2]
        if not rest:
            return tail
        complete = tail[: len(tail) - len(rest)]
        try:
            check_seal(rest)
        except ValueError:
            number = self._lines + complete.count(b"\n") + 1
            self._set_aside([DamagedLine(number, "it was cut short, so it was never acknowledged", rest)])
            os.ftruncate(self._file, self._offset + len(complete))
            os.fsync(self._file)
            self._on_notice(
                f"memory: line {number} of {self.path} was cut short by a crash while it was written; moved to {self.quarantine.name}"
            )
            return complete
        os.write(self._file, b"\n")
        os.fsync(self._file)
        return tail + b"\n"

    def _keep_aside(self, damaged: list[DamagedLine]) -> None:
        if not damaged:
            return
        self.damaged.extend(damaged)
        self._set_aside(damaged)
        numbers = ", ".join(str(line.number) for line in damaged[:SHOWN_LINES])
        more = f" and {len(damaged) - SHOWN_LINES} more" if len(damaged) > SHOWN_LINES else ""
        one = len(damaged) == 1
        self._on_notice(
            f"memory: line{'' if one else 's'} {numbers}{more} of {self.path} {'is' if one else 'are'} damaged ({damaged[0].reason}); "
            f"kept aside in {self.quarantine.name}, the other {len(self.events)} events work"
        )

    def _set_aside(self, lines: Sequence[DamagedLine]) -> None:
        """Copy lines to the quarantine file, each once."""
        already = set(self.quarantine.read_bytes().splitlines()) if self.quarantine.exists() else set()
        records = [
            json.dumps({"line": line.number, "reason": line.reason, "text": line.raw.decode("utf-8", "backslashreplace")}).encode()
            for line in lines
        ]
        with self.quarantine.open("ab") as file:
            file.writelines(record + b"\n" for record in records if record not in already)
            file.flush()
            os.fsync(file.fileno())


def read_lines(path: Path) -> tuple[list[StoredEvent], list[DamagedLine]]:
    """Read a ledger or an export without touching it.

    Returns:
        The readable events in file order, and the lines that could not be read.

    Raises:
        MemoryStoreError: The file cannot be read, or no line of it can.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as problem:
        raise MemoryStoreError(f"{path} cannot be read: {_why(problem)}") from None
    events: list[StoredEvent] = []
    damaged: list[DamagedLine] = []
    headers = 0
    for number, line in enumerate(lines, start=1):
        try:
            if number == 1 and read_header(line)[0] == LEDGER_FORMAT:
                headers = 1
            else:
                events.append(decode(line))
        except ValueError as problem:
            damaged.append(DamagedLine(number, str(problem), line))
    if not events and not headers:
        raise MemoryStoreError(f"{path} is not an export of a memory: expected lines as `discover memory export` writes them")
    return events, damaged


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable (a file's own fsync does not)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(problem: OSError) -> str:
    return problem.strerror or str(problem)
