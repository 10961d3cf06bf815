"""Judgements and paid replies on disk: what was read once is never asked, or paid for, again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypedDict

from tracing.errors import JudgementsError

VERSION = 1
_MOST_AT_ONCE = 500
_TABLES = """
CREATE TABLE judgements (
    judge TEXT NOT NULL,
    parameter_id TEXT NOT NULL,
    text_key TEXT NOT NULL,
    repeat INTEGER NOT NULL,
    status TEXT NOT NULL,
    level INTEGER,
    probabilities TEXT,
    quote TEXT,
    PRIMARY KEY (judge, parameter_id, text_key, repeat),
    CHECK ((status = 'read') = (level IS NOT NULL))
) WITHOUT ROWID;
CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    reply TEXT NOT NULL,
    usage TEXT NOT NULL
) WITHOUT ROWID;
"""


class JudgementRow(TypedDict):
    """One reading of one text by one judge. `level` is None exactly when `status` is not `read`."""

    judge: str
    parameter_id: str
    text_key: str
    repeat: int
    status: str
    level: int | None
    probabilities: list[float] | None
    quote: str | None


class JudgementStore:
    """A SQLite file of judgements and of replies to paid requests; safe to use from several threads.

    Every `put_many` and `store` is on disk when it returns (write-ahead log, synchronous=FULL). The first judgement of a
    (judge, parameter, text, repeat) and the first reply to a request stay; later ones are ignored, so a resumed run changes nothing.

    Args:
        path: The file; created when missing. Use the store as a context manager, or call `close`.

    Raises:
        JudgementsError: The file is no such store, or was written by a newer program.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise JudgementsError(f"{self.path}: expected a store of judgements (SQLite), found something else ({error})") from error
        except JudgementsError:
            self._connection.close()
            raise

    def put_many(self, rows: Iterable[JudgementRow]) -> int:
        """Keep judgements, all or none of them.

        Returns:
            How many are new; those already there are left as they are.

        Raises:
            JudgementsError: A row has a level although it was not read, or none although it was.
        """
        values = [_written(row) for row in rows]
        statement = "INSERT INTO judgements VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (judge, parameter_id, text_key, repeat) DO NOTHING"
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            before = self._connection.total_changes
            try:
                self._connection.executemany(statement, values)
            except sqlite3.IntegrityError as error:
                raise JudgementsError(
                    f"{self.path}: expected a level exactly when a judgement has the status 'read', found otherwise"
                ) from error
            return self._connection.total_changes - before

    def get(self, judge: str, parameter_id: str, repeat: int = 0) -> dict[str, JudgementRow]:
        """All judgements of one parameter by one judge, by text key, in the order of the keys."""
        query = "SELECT * FROM judgements WHERE judge = ? AND parameter_id = ? AND repeat = ? ORDER BY text_key"
        with self._lock:
            rows = self._connection.execute(query, (judge, parameter_id, repeat)).fetchall()
        return {row[2]: _read(row) for row in rows}

    def cached(self, key: str) -> str | None:
        """The stored reply (JSON text) to the request with this content hash, or None."""
        return self._request("reply", key)

    def cached_many(self, keys: Sequence[str]) -> dict[str, str]:
        """The stored replies to these requests, by their content hash; those never made are not in it."""
        found: dict[str, str] = {}
        with self._lock:
            for k in range(0, len(keys), _MOST_AT_ONCE):
                part = list(keys[k : k + _MOST_AT_ONCE])
                places = ", ".join("?" * len(part))
                found.update(self._connection.execute(f"SELECT key, reply FROM requests WHERE key IN ({places})", part))  # noqa: S608 - places
        return found

    def usage(self, key: str) -> dict[str, Any] | None:
        """What the request with this content hash used (tokens and the like), or None when it was never made."""
        text = self._request("usage", key)
        return None if text is None else dict(json.loads(text))

    def usages(self) -> list[dict[str, Any]]:
        """What every stored request used, in the order of the keys."""
        with self._lock:
            rows = self._connection.execute("SELECT usage FROM requests ORDER BY key").fetchall()
        return [dict(json.loads(row[0])) for row in rows]

    def store(self, key: str, reply: str, usage: Mapping[str, Any]) -> None:
        """Keep the reply to a paid request before anything is done with it; a reply already there stays."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO requests VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", (key, reply, json.dumps(dict(usage), sort_keys=True))
            )

    def store_many(self, replies: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """`store` for several replies (key, reply, usage), all or none of them, with one flush of the disk."""
        rows = [(key, reply, json.dumps(dict(usage), sort_keys=True)) for key, reply, usage in replies]
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO requests VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", rows)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _prepare(self) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once; the second must see the tables of the first
            version = cursor.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise JudgementsError(
                    f"{self.path}: expected version {VERSION} or older, found {version}; update order-parameter-discovery"
                )
            if version == 0 and cursor.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise JudgementsError(f"{self.path}: expected a store of judgements, found an SQLite file of something else")
            if version == 0:
                for statement in _TABLES.split(";"):
                    cursor.execute(statement)
                cursor.execute(f"PRAGMA user_version = {VERSION}")
            cursor.execute("COMMIT")

    def _request(self, column: str, key: str) -> str | None:
        place = {"reply": 0, "usage": 1}[column]
        with self._lock:
            row = self._connection.execute("SELECT reply, usage FROM requests WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[place])


def _written(row: JudgementRow) -> tuple[Any, ...]:
    probabilities = None if row["probabilities"] is None else json.dumps(list(row["probabilities"]))
    own = (row["judge"], row["parameter_id"], row["text_key"], row["repeat"], row["status"], row["level"])
    return (*own, probabilities, row["quote"])


def _read(row: tuple[Any, ...]) -> JudgementRow:
    judge, parameter_id, text_key, repeat, status, level, probabilities, quote = row
    return JudgementRow(
        judge=judge,
        parameter_id=parameter_id,
        text_key=text_key,
        repeat=repeat,
        status=status,
        level=level,
        probabilities=None if probabilities is None else json.loads(probabilities),
        quote=quote,
    )
