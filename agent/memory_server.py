"""A memory shared by a team: a Chroma server holds the index, and every event, so that each member's ledger can catch up.

The ledger on each machine stays the source of truth for that machine: events go to it first and are acknowledged there; the
exchange with the server only ever adds events, on either side, and recognises them by their content hash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from agent.errors import MemoryStoreError
from agent.memory_embedders import Embedder, embedder_id, make_embedder
from agent.memory_events import StoredEvent, decode
from agent.memory_index import COLLECTION, Shelf, Wanted, batches, close_server, collection_is_gone, first_line, open_server
from agent.memory_ledger import Ledger

EVENTS_COLLECTION = "order-parameter-events"


class ServerIndex:
    """The index on a Chroma server, `http://host:port`; with the team's events in a second collection."""

    def __init__(self, url: str, wanted: Wanted, ledger: Ledger, embedder_name: str | None, on_notice: Callable[[str], None]) -> None:
        """Connect to the server.

        Args:
            url: `http://host:port` or `https://host:port`.
            wanted: What the index should hold.
            ledger: This machine's ledger, which takes part in the exchange of events.
            embedder_name: `ngrams`, `st:NAME`, or None for the one the index was built with.
            on_notice: Receives one-line messages.

        Raises:
            MemoryStoreError: The address is not of this form, or no Chroma server answers there.
        """
        self._url, self._wanted, self._ledger, self._on_notice = url, wanted, ledger, on_notice
        self._embedder: Embedder | None = None if embedder_name is None else make_embedder(embedder_name)
        self._shelf: Shelf | None = None
        self._events: Any = None
        self._done: Mapping[str, str] | None = None
        self._exchanged = (-1, -1)
        self._client = _connect(url)
        self.embedder_id = embedder_id(embedder_name or self._ask(self._stored_embedder) or "ngrams")

    @property
    def embedder(self) -> Embedder:
        """The embedder, loaded when first needed."""
        if self._embedder is None:
            self._embedder = make_embedder(self.embedder_id)
        return self._embedder

    def check(self) -> None:
        """Compare what the server holds with the ledger; complete it, or rebuild it when its vectors are gone, with one notice.

        Raises:
            MemoryStoreError: The server does not answer, or its index was built with another embedder.
        """
        self._ask(self._check)

    def update(self) -> None:
        """Exchange events and bring the index to the ledger's content, silently."""
        self._ask(self._current)

    def rebuild(self, reason: str) -> None:
        """Throw the index on the server away and build it again, whichever embedder made it."""
        self._ask(lambda: self._build(reason))

    def query(self, text: str, n: int) -> list[tuple[str, float]]:
        """The `n` nearest ids and their cosine similarities, nearest first."""
        found: list[tuple[str, float]] = self._ask(lambda: self._current().query(text, n))
        return found

    def wrong(self) -> list[str]:
        """Ids that are missing, left over, or hold another vector than their words have."""
        found: list[str] = self._ask(lambda: self._current().wrong(self._wanted.wordings()))
        return found

    def close(self) -> None:
        """Close the connection."""
        close_server(self._client)

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask the server; once more with fresh collections, because another client may have rebuilt them."""
        try:
            try:
                return question()
            except Exception as problem:
                if not collection_is_gone(problem):
                    raise
                self._shelf = self._events = self._done = None
                return question()
        except MemoryStoreError:
            raise
        except Exception as problem:  # httpx and Chroma raise many kinds; all of them mean that the server cannot be used now
            raise MemoryStoreError(f"the Chroma server at {self._url} failed: {first_line(problem)}") from None

    def _stored_embedder(self) -> str | None:
        names = {collection.name: collection.metadata for collection in self._client.list_collections()}
        stored = (names.get(COLLECTION) or {}).get("embedder")
        return None if stored is None else str(stored)

    def _check(self) -> None:
        self._exchange()
        shelf, wordings = self._reach(), self._wanted.wordings()
        if shelf.lost(wordings):
            self._build("its vectors are missing")
            return
        added, removed = self._change(shelf, wordings)
        if added or removed:
            self._on_notice(f"memory: index at {self._url} brought up to date with the ledger ({added} added, {removed} removed)")

    def _current(self) -> Shelf:
        self._exchange()
        shelf, wordings = self._reach(), self._wanted.wordings()
        if wordings is not self._done or shelf.collection.count() != len(shelf.held):
            shelf.reread()
            self._change(shelf, wordings)
        return shelf

    def _reach(self) -> Shelf:
        if self._shelf is None:
            self._shelf = Shelf(self._url, self._client, self._wanted, lambda: self.embedder, self.embedder_id)
        return self._shelf

    def _change(self, shelf: Shelf, wordings: Mapping[str, str]) -> tuple[int, int]:
        """Add what is missing; remove only what our ledger knows to be forgotten, since a team mate may just be adding the rest."""
        missing = shelf.missing(wordings)
        known = {stored.parameter_id for stored in self._ledger.events}
        surplus = [key for key in shelf.held if key not in wordings and key in known]
        shelf.remove(surplus)
        shelf.add(missing, wordings)
        self._done = wordings
        return len(missing), len(surplus)

    def _build(self, reason: str) -> None:
        if any(collection.name == COLLECTION for collection in self._client.list_collections()):
            self._client.delete_collection(COLLECTION)
        self._shelf = None
        self._exchange()
        wordings = self._wanted.wordings()
        self._reach().add(list(wordings), wordings)
        self._done = wordings
        self._on_notice(f"memory: index at {self._url} rebuilt from the ledger ({len(wordings)} entries): {reason}")

    def _exchange(self) -> int:
        if self._events is None:
            self._events = self._client.get_or_create_collection(EVENTS_COLLECTION, embedding_function=None)
        self._ledger.refresh()
        if self._exchanged == (self._events.count(), len(self._ledger)):
            return 0
        there = set(self._events.get(include=[])["ids"])
        fetched = self._fetch(sorted(key for key in there if key not in self._ledger))
        self._send([stored for stored in self._ledger.events if stored.id not in there])
        self._exchanged = (self._events.count(), len(self._ledger))
        return fetched

    def _fetch(self, ids: list[str]) -> int:
        fetched: list[StoredEvent] = []
        for batch in batches(ids):
            found = self._events.get(ids=batch, include=["metadatas"])
            for key, data in zip(found["ids"], found["metadatas"], strict=True):
                try:
                    fetched.append(decode(str(data["line"]).encode()))
                except (ValueError, KeyError, TypeError) as problem:
                    self._on_notice(f"memory: event {key} on {self._url} is damaged ({problem}); left out")
        return len(self._ledger.append(fetched))

    def _send(self, events: Sequence[StoredEvent]) -> None:
        lines = {stored.id: stored.line.decode() for stored in events}
        for batch in batches(list(lines)):
            self._events.upsert(ids=batch, embeddings=[_place(key) for key in batch], metadatas=[{"line": lines[key]} for key in batch])


def server_address(url: str) -> tuple[str, int, bool]:
    """Host, port and whether the connection is encrypted, of `http://host:port` or `https://host:port`.

    Raises:
        MemoryStoreError: The address is not of this form.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise MemoryStoreError(f"expected a Chroma server as http://host:port, found {url!r}")
    return parts.hostname, port, parts.scheme == "https"


def _connect(url: str) -> Any:
    host, port, ssl = server_address(url)
    try:
        return open_server(host, port, ssl)
    except Exception as problem:  # ValueError, httpx errors, Chroma errors: all mean the same to the user
        raise MemoryStoreError(
            f"no Chroma server answers at {url} ({first_line(problem)}): start one with `chroma run --path DIR --port {port}`"
        ) from None


def _place(event_id: str) -> list[float]:
    """A vector for a record that is never searched (Chroma insists on one): a point on the circle, spread by the id."""
    angle = 2 * math.pi * int(event_id[:8], 16) / 0x100000000
    return [math.cos(angle), math.sin(angle)]
