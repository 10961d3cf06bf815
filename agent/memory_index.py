"""The index: Chroma beside the ledger, for nearest texts. It can always be thrown away and built again.

Chroma fails silently (a missing file becomes an empty database, missing vectors give wrong neighbours) and a damaged vector file
can end the whole process, so the files' digest is checked *before* Chroma sees them and the content's digest after. Processes
take turns: every use of a local index holds its lock, and a reader reopens when another process changed it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from agent.errors import MemoryStoreError
from agent.memory_embedders import Embedder, embedder_id, make_embedder

COLLECTION = "order-parameters"
BATCH = 1000
CANARIES = 5
SAME_VECTOR = 0.999
STAMP_FORMAT = "order-parameter-memory-index"
STAMP_VERSION = 1


@dataclass(frozen=True)
class Wanted:
    """What an index should hold, asked of the ledger whenever it is needed.

    Attributes:
        wordings: Gives `parameter id -> hash of its words`; the same object while the ledger has not grown.
        text: Gives the words of one parameter.
    """

    wordings: Callable[[], Mapping[str, str]]
    text: Callable[[str], str]


class Index(Protocol):
    """Nearest neighbours by text, kept equal to the ledger.

    An index asks what it should hold whenever it needs to know, under its lock, so that two processes never undo each other's
    work with an older view of the ledger.
    """

    embedder_id: str

    def check(self) -> None:
        """Make sure the index is whole and complete; rebuild or complete it, with one notice, when not."""

    def update(self) -> None:
        """Bring the index to the ledger's content, silently."""

    def rebuild(self, reason: str) -> None:
        """Throw the index away and build it again, with one notice that gives the reason."""

    def query(self, text: str, n: int) -> list[tuple[str, float]]:
        """The `n` nearest ids and their cosine similarities, nearest first."""

    def wrong(self) -> list[str]:
        """Ids that are missing, left over, or hold another vector than their words have."""

    def close(self) -> None:
        """Release files and connections."""


def content_digest(wordings: Mapping[str, str]) -> str:
    """sha256 over ids and hashes of words, independent of their order."""
    return hashlib.sha256(json.dumps(sorted(wordings.items())).encode()).hexdigest()


def mixing_error(where: str, built: str, wanted: str) -> MemoryStoreError:
    """The one line that refuses to compare vectors of two embedders, and says what to do."""
    return MemoryStoreError(
        f"the index of {where} was built with embedder {built!r}, not {wanted!r}: name that one, or run "
        f"`discover memory rebuild --embedder {wanted.split('-')[0] if wanted.startswith('ngrams') else wanted}` to change it"
    )


class Shelf:
    """One Chroma collection with our own vectors: what a local and a served index have in common."""

    def __init__(self, where: str, client: Any, wanted: Wanted, embedder: Callable[[], Embedder], embedder_id: str) -> None:
        """Open the collection, or create it for this embedder.

        Raises:
            MemoryStoreError: The collection holds another embedder's vectors.
        """
        self._wanted, self._embedder = wanted, embedder
        self.collection = client.get_or_create_collection(
            COLLECTION, embedding_function=None, metadata={"embedder": embedder_id}, configuration={"hnsw": {"space": "cosine"}}
        )
        built = str((self.collection.metadata or {}).get("embedder", "unknown"))
        if built != embedder_id:
            raise mixing_error(where, built, embedder_id)
        self.held: dict[str, str] = {}
        self.reread()

    def reread(self) -> None:
        """Ask Chroma what it holds: `held` becomes `id -> hash of words`."""
        found = self.collection.get(include=["metadatas"])
        self.held = {key: str((data or {}).get("wording", "")) for key, data in zip(found["ids"], found["metadatas"] or [], strict=True)}

    def missing(self, wordings: Mapping[str, str]) -> list[str]:
        """Ids that are not held, or with other words."""
        return [key for key, wording in wordings.items() if self.held.get(key) != wording]

    def add(self, keys: Sequence[str], wordings: Mapping[str, str]) -> None:
        """Embed and store parameters."""
        for batch in batches(keys):
            self.collection.upsert(ids=batch, embeddings=self._vectors(batch), metadatas=[{"wording": wordings[key]} for key in batch])
            self.held.update({key: wordings[key] for key in batch})

    def remove(self, keys: Sequence[str]) -> None:
        """Delete ids."""
        for batch in batches(keys):
            self.collection.delete(ids=batch)
            for key in batch:
                self.held.pop(key, None)

    def query(self, text: str, n: int) -> list[tuple[str, float]]:
        """Nearest ids with cosine similarities."""
        if not self.held or n < 1:
            return []
        found = self.collection.query(query_embeddings=self._embedder().embed([text]), n_results=n, include=["distances"])
        return [(key, 1.0 - float(distance)) for key, distance in zip(found["ids"][0], found["distances"][0], strict=True)]

    def wrong(self, wordings: Mapping[str, str]) -> list[str]:
        """Ids missing, left over, or whose stored vector, or nearest neighbour, is not that of their words."""
        self.reread()
        wrong = set(self.held) ^ set(wordings) | set(self.missing(wordings))
        for batch in batches(sorted(self.held.keys() & wordings.keys())):
            found = self.collection.get(ids=batch, include=["embeddings"])
            cosine = (self._vectors(found["ids"]) * np.asarray(found["embeddings"])).sum(axis=1)
            wrong |= {key for key, value in zip(found["ids"], cosine, strict=True) if not value > SAME_VECTOR}
        return sorted(wrong | set(self.lost(wordings)))

    def lost(self, wordings: Mapping[str, str]) -> list[str]:
        """Of a few ids spread over all, those whose own vector is not found: Chroma keeps the count when the vectors are gone."""
        keys = sorted(self.held.keys() & wordings.keys())
        chosen = keys[:: max(1, len(keys) // CANARIES)][:CANARIES]
        return [key for key in chosen if not ((near := self.query(self._wanted.text(key), 1)) and near[0][1] > SAME_VECTOR)]

    def _vectors(self, keys: Sequence[str]) -> NDArray[np.float32]:
        return self._embedder().embed([self._wanted.text(key) for key in keys])


class LocalIndex:
    """A Chroma database in a folder beside the ledger.

    `index.json` (the stamp) holds embedder, count, content digest and the digest of every file. It is removed before the files
    change and written after, so a crash in between is seen at the next open. When everything agrees, Chroma itself is opened only
    by the first query.
    """

    def __init__(self, folder: Path, wanted: Wanted, embedder_name: str | None, on_notice: Callable[[str], None]) -> None:
        """Remember where the index lies; nothing is opened before `check`.

        Args:
            folder: The memory's folder.
            wanted: What the index should hold.
            embedder_name: `ngrams`, `st:NAME`, or None for the one the index was built with.
            on_notice: Receives one-line messages.
        """
        self._folder, self._wanted, self._on_notice = folder, wanted, on_notice
        self._root, self._stamp_path = folder / "index", folder / "index.json"
        self._lock = FileLock(str(folder / "index.lock"), poll_interval=0.005)
        stamp = self._read_stamp() or {}
        self.embedder_id = embedder_id(embedder_name or str(stamp.get("embedder", "ngrams")))
        self._embedder: Embedder | None = None if embedder_name is None else make_embedder(embedder_name)
        self._client: Any = None
        self._shelf: Shelf | None = None
        self._generation = ""
        self._done: Mapping[str, str] | None = None  # what the index was last brought to

    def check(self) -> None:
        """Check count and digest of files and content; rebuild, with one notice, when they differ.

        Raises:
            MemoryStoreError: The index was built with another embedder, or cannot be built here.
        """
        with self._lock:
            stamp, wordings = self._read_stamp(), self._wanted.wordings()
            if stamp is not None and stamp["embedder"] != self.embedder_id:
                raise mixing_error(str(self._folder), str(stamp["embedder"]), self.embedder_id)
            if self._is_new(stamp, wordings):
                return
            fault = self._fault(stamp)
            if stamp is None or fault:
                self._build(fault)
            elif (stamp["count"], stamp["digest"]) != (len(wordings), content_digest(wordings)):
                self._complete(stamp)

    def update(self) -> None:
        """Bring the index to the ledger's content, silently unless it turns out to be broken."""
        with self._lock:
            wordings = self._wanted.wordings()
            stamp = self._read_stamp()
            if stamp is None or (stamp["count"], stamp["digest"]) != (len(wordings), content_digest(wordings)):
                self._current()

    def rebuild(self, reason: str) -> None:
        """Throw the index away and build it again, whichever embedder made it."""
        with self._lock:
            self._build(reason)

    def query(self, text: str, n: int) -> list[tuple[str, float]]:
        """The `n` nearest ids and their cosine similarities, nearest first."""
        with self._lock:
            shelf = self._current()
            return shelf.query(text, n) if shelf else []

    def wrong(self) -> list[str]:
        """Ids that are missing, left over, or hold another vector than their words have."""
        with self._lock:
            shelf = self._current()
            return shelf.wrong(self._wanted.wordings()) if shelf else []

    def close(self) -> None:
        """Close Chroma's files."""
        if self._client is not None:
            with suppress(Exception):  # the files may be gone; closing must not fail for that
                self._client.close()
        self._client = self._shelf = self._done = None
        self._generation = ""

    def _is_new(self, stamp: dict[str, Any] | None, wordings: Mapping[str, str]) -> bool:
        return stamp is None and not self._root.exists() and not wordings

    def _current(self) -> Shelf | None:
        """The shelf, equal to the ledger: reopened when another process changed it, rebuilt when broken; None for an empty memory."""
        stamp, wordings = self._read_stamp(), self._wanted.wordings()
        shelf = self._shelf
        if shelf is None or stamp is None or stamp["generation"] != self._generation:
            if self._is_new(stamp, wordings):
                return None
            if stamp is None and not self._root.exists():
                return self._build("")
            fault = self._fault(stamp)
            shelf = self._build(fault) if fault or stamp is None else self._open(stamp)
        if wordings is not self._done:
            self._change(shelf, wordings)
        return shelf

    def _complete(self, stamp: dict[str, Any]) -> None:
        """Bring an index that fell behind to the ledger, and say so."""
        wordings, before = self._wanted.wordings(), dict(self._open(stamp).held)
        added, removed = len(wordings.items() - before.items()), len(before.keys() - wordings.keys())
        self._current()
        if added or removed:  # nothing when opening it made a rebuild necessary, which has its own notice
            self._on_notice(f"memory: index brought up to date with the ledger ({added} added, {removed} removed)")

    def _fault(self, stamp: dict[str, Any] | None) -> str:
        """What is wrong with the files, empty when they are as the stamp says."""
        if stamp is None:
            return "it was not closed properly" if self._root.exists() else "there was none"
        return _file_fault(self._root / str(stamp["folder"]), stamp["files"])

    def _open(self, stamp: dict[str, Any]) -> Shelf:
        """Open the files a stamp describes, after `_fault` found nothing; rebuild them when Chroma disagrees."""
        self.close()
        folder = self._root / str(stamp["folder"])
        try:
            shelf = self._connect(folder)
        except MemoryStoreError:
            raise
        except Exception as problem:  # Chroma raises many kinds; whatever it is, the ledger can replace the index
            return self._build(f"Chroma cannot read it ({first_line(problem)})")
        if len(shelf.held) != stamp["count"] or content_digest(shelf.held) != stamp["digest"]:
            return self._build(f"it holds {len(shelf.held)} entries, or others, instead of the {stamp['count']} it should")
        self._shelf = shelf
        self._write_stamp(folder.name, str(stamp["generation"]))  # opening alone changes Chroma's files
        return shelf

    def _connect(self, folder: Path) -> Shelf:
        self._client = open_folder(folder)
        return Shelf(str(self._folder), self._client, self._wanted, lambda: self.embedder, self.embedder_id)

    @property
    def embedder(self) -> Embedder:
        """The embedder, loaded when first needed."""
        if self._embedder is None:
            self._embedder = make_embedder(self.embedder_id)
        return self._embedder

    def _change(self, shelf: Shelf, wordings: Mapping[str, str]) -> None:
        """Add what is missing or worded differently, remove what is left over."""
        missing = shelf.missing(wordings)
        surplus = [key for key in shelf.held if key not in wordings]
        if missing or surplus:
            name = str((self._read_stamp() or {}).get("folder", ""))
            self._stamp_path.unlink(missing_ok=True)
            shelf.remove(surplus)
            shelf.add(missing, wordings)
            self._write_stamp(name, uuid.uuid4().hex)
        self._done = wordings

    def _build(self, reason: str) -> Shelf:
        """Build a new database, in a folder of its own name: another handle may still have the old one open."""
        self.close()
        self._stamp_path.unlink(missing_ok=True)
        shutil.rmtree(self._root, ignore_errors=True)
        folder = self._root / uuid.uuid4().hex[:12]
        wordings = self._wanted.wordings()
        try:
            folder.mkdir(parents=True)
            shelf = self._connect(folder)
            shelf.add(list(wordings), wordings)
        except MemoryStoreError:
            raise
        except Exception as problem:
            raise MemoryStoreError(f"the index at {self._root} cannot be built: {first_line(problem)}") from None
        self._shelf, self._done = shelf, wordings
        self._write_stamp(folder.name, uuid.uuid4().hex)
        if reason:
            self._on_notice(f"memory: index rebuilt from the ledger ({len(wordings)} entries): {reason}")
        return shelf

    def _read_stamp(self) -> dict[str, Any] | None:
        try:
            stamp = json.loads(self._stamp_path.read_bytes())
            stamp_ok = stamp["format"] == STAMP_FORMAT and stamp["version"] == STAMP_VERSION and isinstance(stamp["files"], dict)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        needed = {"embedder", "generation", "folder", "count", "digest"}
        return stamp if stamp_ok and needed <= stamp.keys() else None

    def _write_stamp(self, folder: str, generation: str) -> None:
        held = self._shelf.held if self._shelf else {}
        stamp = {
            "format": STAMP_FORMAT,
            "version": STAMP_VERSION,
            "embedder": self.embedder_id,
            "folder": folder,
            "generation": generation,
            "count": len(held),
            "digest": content_digest(held),
            "files": _file_digests(self._root / folder),
        }
        fresh = self._stamp_path.with_suffix(".new")
        fresh.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        os.replace(fresh, self._stamp_path)
        self._generation = generation


def open_folder(folder: Path) -> Any:
    """A Chroma client on a local folder."""
    from chromadb import PersistentClient
    from chromadb.config import Settings

    return PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


def open_server(host: str, port: int, ssl: bool) -> Any:
    """A Chroma client on a server."""
    from chromadb import HttpClient
    from chromadb.config import Settings

    return HttpClient(host=host, port=port, ssl=ssl, settings=Settings(anonymized_telemetry=False))


def close_server(client: Any) -> None:
    """Close a client on a server, with the HTTP sessions (its own and its administrator's) that Chroma's own `close` leaves open."""
    client.close()
    for part in (client, client._admin_client):
        part._server._session.close()


def collection_is_gone(problem: Exception) -> bool:
    """Whether Chroma says that a collection is no longer there (another client rebuilt it)."""
    from chromadb.errors import NotFoundError

    return isinstance(problem, NotFoundError)


def batches(keys: Sequence[str]) -> Iterator[list[str]]:
    """Slices of at most `BATCH` keys."""
    return (list(keys[start : start + BATCH]) for start in range(0, len(keys), BATCH))


def first_line(problem: BaseException) -> str:
    """The first line of an error's message, its class when it has none."""
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__


def _file_digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _file_fault(folder: Path, expected: Mapping[str, str]) -> str:
    """What differs between the files and their digests, empty when nothing does."""
    found = _file_digests(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{Path(name).name} is missing"
        if found[name] != expected.get(name):
            return f"{Path(name).name} has changed"
    return ""
