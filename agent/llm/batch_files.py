"""A folder of batch requests and their answers: what was written for whom, what came back, what is open.

    requests-ROLE-0001.jsonl    written here, in the provider's own batch format; never changed once the program has ended
    ANYTHING ELSE.jsonl         answers, put there by whoever answers: a provider's batch API, a job on a cluster, a person

Answers may be partial, doubled, in any order and in any number of files. The first answer to a request counts (files by name, then lines).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.llm.batch_rows import Row, RowError, read_row
from tracing.whole_file import whole_file

PREFIX = "requests-"


@dataclass
class BatchFiles:
    """What a folder holds.

    Attributes:
        written: How often each request was written, by custom id.
        bodies: What was last sent for it.
        rows: The row that counts for each request: its first answer, else its last failure.
        unanswered: How often each request came back without an answer.
        faults: Lines that could not be read, as `file:line: reason`.
        strangers: Answers to nothing that was asked here.
        doubles: Answers beyond the first.
        copies: Files that are byte for byte an earlier one, by name: a copy tells nothing new.
    """

    written: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    unanswered: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    strangers: int = 0
    doubles: int = 0
    copies: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> BatchFiles:
        """Everything in the folder; an empty result where there is none yet.

        Raises:
            ConfigError: A file cannot be read.
        """
        found = cls()
        paths = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
        for path in paths:
            if path.name.startswith(PREFIX):
                found._add_requests(path)
        seen: set[str] = set()
        for path in paths:
            if not path.name.startswith(PREFIX):
                data = _bytes(path)
                digest = hashlib.sha256(data).hexdigest()
                if digest in seen:
                    found.copies.append(path.name)
                else:
                    found._add_answers(path, data)
                seen.add(digest)
        return found

    def _add_requests(self, path: Path) -> None:
        for line in _bytes(path).decode("utf-8", "replace").splitlines():
            try:
                row = json.loads(line)
                name, body = row["custom_id"], row.get("body") or row["params"]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigError(f"{path}: expected the requests that discover wrote there, found something else") from None
            self.written[name] += 1
            self.bodies[name] = body

    def _add_answers(self, path: Path, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        whole = text.split("\n")
        if text and not text.endswith("\n") and not _is_json(whole[-1]):
            whole.pop()  # somebody is still writing it
        for number, line in enumerate(whole, 1):
            if not line.strip():
                continue
            try:
                self._add(read_row(line))
            except RowError as error:
                self.faults.append(f"{path.name}:{number}: {error}")

    def _add(self, row: Row) -> None:
        if row.custom_id not in self.written:
            self.strangers += 1
            return
        before = self.rows.get(row.custom_id)
        if before is not None and before.fate == "answered":
            self.doubles += row.fate == "answered"
            return
        self.unanswered[row.custom_id] += row.fate != "answered"
        self.rows[row.custom_id] = row

    def is_open(self, name: str) -> bool:
        """Whether an answer is still to come: written more often than it came back."""
        return self.written[name] > self.unanswered[name]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable file ({error.strerror})") from None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def next_path(folder: Path, role: str) -> Path:
    """A name that no file of requests has."""
    number = 1
    while (path := folder / f"{PREFIX}{role.replace(' ', '-')}-{number:04d}.jsonl").exists():
        number += 1
    return path


def write_requests(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One line for each request, all of them or none.

    Raises:
        ConfigError: Nothing can be written there.
    """
    try:
        with whole_file(path) as file:
            for row in rows:
                file.write(json.dumps(dict(row), ensure_ascii=True).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: expected a folder to write requests to ({error.strerror})") from None
