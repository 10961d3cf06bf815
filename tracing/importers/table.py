"""A file of responses as columns of raw values, each of which knows the line it stands on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracing.errors import ImportFileError

_SHOWN = 40


@dataclass(frozen=True)
class Table:
    """n rows of raw values, read but not yet understood.

    Attributes:
        path: The file as given, for messages.
        names: All columns found, in order.
        lines: (n,) where each row starts: line numbers from 1 (row numbers in Parquet).
        fetch: Gives the n values of a column of `names`; None where a row has no value.
        unit: What `lines` count: "" for lines, "row " for rows.
        typed: False when every value is text because the format knows no types (CSV).
    """

    path: str
    names: tuple[str, ...]
    lines: tuple[int, ...]
    fetch: Callable[[str], list[Any]]
    unit: str = ""
    typed: bool = True

    def __len__(self) -> int:
        return len(self.lines)

    def root(self, name: str) -> str | None:
        """The column that holds `name`: itself, or `judge` for the dotted name `judge.aligned`; None when there is none."""
        if name in self.names:
            return name
        parts = name.split(".")
        prefixes = (".".join(parts[:k]) for k in range(len(parts) - 1, 0, -1))
        return next((prefix for prefix in prefixes if prefix in self.names), None)

    def column(self, name: str) -> list[Any] | None:
        """The n values of a column or of a dotted name inside nested objects; None when no row has one."""
        root = self.root(name)
        if root is None:
            return None
        values = self.fetch(root)
        for part in name[len(root) + 1 :].split(".") if root != name else ():
            values = [value.get(part) if isinstance(value, dict) else None for value in values]
        if root != name and all(value is None for value in values):
            return None
        return values

    def missing(self, value: Any) -> bool:
        """Whether a cell holds nothing (in CSV an empty cell does)."""
        return value is None or (not self.typed and value == "")

    def take(self, rows: Sequence[int]) -> Table:
        """Only `rows`, in that order."""

        def fetch(name: str) -> list[Any]:
            values = self.fetch(name)
            return [values[row] for row in rows]

        return replace(self, lines=tuple(self.lines[row] for row in rows), fetch=fetch)

    def line(self, row: int) -> str:
        """`line 17` or `row 17`, for use inside a message."""
        return f"{self.unit or 'line '}{self.lines[row]}"

    def error(self, row: int, expected: str, found: str) -> ImportFileError:
        """The one line a user sees about one row."""
        return ImportFileError(f"{self.path}:{self.unit}{self.lines[row]}: expected {expected}, found {found}")

    def file_error(self, expected: str, found: str) -> ImportFileError:
        """The one line a user sees about the file as a whole (it points to where the columns are named)."""
        place = "" if self.unit else ":1"
        return ImportFileError(f"{self.path}{place}: expected {expected}, found {found}")


def kind(value: Any) -> str:
    """The type of a raw value in a reader's words."""
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """A raw value for a message: its type and its beginning, on one line."""
    if value is None or value == "":
        return "nothing" if value is None else "an empty text"
    text = repr(value) if isinstance(value, str) else str(value)
    text = " ".join(text.split()) if text.isprintable() else repr(text)
    return f"{kind(value)} {_short(text)}"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message: at most `most` of them, each short and on one line whatever a file calls its columns."""
    every = [_short(name if name.isprintable() and name else repr(name)) for name in names]
    return ", ".join(every[:most]) + (f", … ({len(every)} in all)" if len(every) > most else "")


def _short(text: str) -> str:
    return text[:_SHOWN] + ("…" if len(text) > _SHOWN else "")


def decoded(path: str, data: bytes) -> str:
    """The text of a file.

    Raises:
        ImportFileError: It is empty, or no valid UTF-8 (the message says line and byte).
    """
    if not data.strip():
        raise ImportFileError(f"{path}:1: expected at least one response, found an empty file")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, byte = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"{path}:{line}: expected UTF-8, found the byte 0x{data[error.start]:02x} at byte {byte} of the line"
        raise ImportFileError(message) from error


def content_digest(data: bytes, how: Sequence[tuple[str, str]]) -> str:
    """SHA-256 of a file's bytes and of how they were read (renamed columns, selected rows)."""
    total = hashlib.sha256(hashlib.sha256(data).digest())
    for name, value in how:
        total.update(f"{len(name)}:{name}={len(value)}:{value}\n".encode())
    return total.hexdigest()
