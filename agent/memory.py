"""The memory: order parameters found once, tried first on the next run, never proposed twice, never lost.

`Memory` puts two things side by side: a ledger of events (`memory_ledger`, the source of truth) and an index for nearest texts
(`memory_index`, `memory_server`; can always be rebuilt). What it knows of one parameter is its events folded (`memory_entries`).

    with Memory.open(None) as memory:
        memory.append(MemoryEvent("accepted", parameter, provenance=Provenance(run="runs/a", run_digest=digest)))
        for entry, similarity, how in memory.near_duplicates(candidate, labels):
            ...
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from agent.errors import MemoryStoreError
from agent.memory_duplicates import THRESHOLDS, Duplicate, Labels, Thresholds, near_duplicates
from agent.memory_embedders import NgramEmbedder
from agent.memory_entries import MemoryEntry, RunOutcome, fold, nearness, remembered_wording, search_text
from agent.memory_events import MemoryEvent, Provenance, StoredEvent, encode, header, now
from agent.memory_index import Index, LocalIndex, Wanted
from agent.memory_ledger import DamagedLine, Ledger, read_lines
from agent.memory_server import ServerIndex, server_address
from agent.records import OrderParameter

__all__ = ["Duplicate", "Hit", "Imported", "Memory", "MemoryEntry", "MemoryEvent", "Provenance", "RunOutcome", "Verification"]

APPLICATION = "order-parameter-discovery"
TEXT_CANDIDATES = 50


class Hit(NamedTuple):
    """One search result: the entry and the cosine of its text with the query, in [-1, 1]."""

    entry: MemoryEntry
    similarity: float


@dataclass(frozen=True)
class Imported:
    """What an import did: events added, events already known, and lines that could not be read."""

    added: int
    known: int
    damaged: tuple[DamagedLine, ...]


@dataclass(frozen=True)
class Verification:
    """What a check of ledger and index found.

    Attributes:
        ledger: The ledger's path.
        events: Readable events.
        entries: Parameters remembered (not counting forgotten ones).
        indexed: Entries in the index after the check.
        damaged: Lines of the ledger that cannot be read.
        repaired: Ids whose index entry was missing, left over or wrong, and was put right.
    """

    ledger: Path
    events: int
    entries: int
    indexed: int
    damaged: tuple[DamagedLine, ...]
    repaired: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No damaged line, and ledger and index agreed before the check."""
        return not self.damaged and not self.repaired


class Memory:
    """Remembered order parameters. Open with `Memory.open`, use as a context manager; several processes may do so at once."""

    def __init__(self, ledger: Ledger, examples: bool) -> None:
        """Wrap an open ledger; `Memory.open` adds the index."""
        self._ledger, self._examples = ledger, examples
        self._history: dict[str, list[StoredEvent]] = {}
        self._tombstones: dict[str, StoredEvent] = {}
        self._folded: dict[str, MemoryEntry | None] = {}
        self._wordings: dict[str, str] | None = None
        self._taken = self._starts = 0
        self._guard = threading.RLock()  # nodes of the loop run in threads
        self._index: Index | None = None
        self._on_notice: Callable[[str], None] = _to_stderr

    @classmethod
    def open(
        cls,
        where: str | Path | None = None,
        embedder: str | None = "ngrams",
        on_notice: Callable[[str], None] | None = None,
        *,
        examples: bool = False,
        rebuild: bool = False,
    ) -> Memory:
        """Open or create a memory and check it.

        Args:
            where: A folder; `http://host:port` for a Chroma server shared by a team (the ledger then lies in the data folder and
                exchanges events with the server); None for the XDG data folder.
            embedder: `ngrams`, `st:NAME` (sentence-transformers), or None for the one the index was built with.
            on_notice: Receives one-line messages (index rebuilt, ledger line damaged); printed to stderr otherwise.
            examples: Keep response text that events carry; it is left out otherwise.
            rebuild: Build the index anew whatever its state; this is how its embedder is changed.

        Raises:
            MemoryStoreError: The folder or server cannot be used, or the index was built with another embedder.
        """
        notice = on_notice or _to_stderr
        url = str(where) if where is not None and "://" in str(where) else None
        if url:
            server_address(url)
        folder = data_folder(url) if where is None or url else Path(where).expanduser()
        ledger = Ledger(folder / "ledger.jsonl", notice)
        memory = cls(ledger, examples)
        memory._on_notice = notice
        try:
            memory._index = memory._make_index(url, folder, embedder)
            memory._start(rebuild)
        except BaseException:
            memory._release()
            raise
        return memory

    def __enter__(self) -> Self:
        """The memory itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Close the memory."""
        self.close()

    def __len__(self) -> int:
        """Remembered parameters, without forgotten ones."""
        return len(self._current_wordings())

    @property
    def ledger_path(self) -> Path:
        """The JSONL file that is the source of truth."""
        return self._ledger.path

    @property
    def embedder_id(self) -> str:
        """Id of the embedder the index uses."""
        return self._opened_index().embedder_id

    def close(self) -> None:
        """Bring the index up to date and release files and connections. Events are safe in the ledger whatever happens here."""
        try:
            if self._index is not None:
                self._index.update()
        except MemoryStoreError as problem:
            self._on_notice(f"memory: the index is behind the ledger and catches up when next opened: {problem}")
        finally:
            self._release()

    def append(self, event: MemoryEvent) -> bool:
        """Write one event; when this returns it is on disk.

        Returns:
            False when the same event was there already (a run resumed after kill -9 writes nothing twice).

        Raises:
            MemoryStoreError: The event or the file cannot be written.
        """
        return bool(self.append_many((event,)))

    def append_many(self, events: Iterable[MemoryEvent]) -> int:
        """Write several events with one fsync.

        Returns:
            How many were new.

        Raises:
            MemoryStoreError: An event or the file cannot be written; then none of them is.
        """
        with self._ledger.locked():
            self._take_in()
            stored = [encode(self._placed(event), examples=self._examples) for event in events]
            new = len(self._ledger.append(stored))
        self._take_in()
        return new

    def entries(self, *, forgotten: bool = False) -> list[MemoryEntry]:
        """What is remembered of every parameter, in the order they were first seen.

        Args:
            forgotten: Include forgotten ones (status `forgotten`).
        """
        self._refresh()
        folded = [self._fold(parameter_id) for parameter_id in list(self._history)]
        return [entry for entry in folded if entry is not None and (forgotten or entry.status != "forgotten")]

    def entry(self, parameter_id: str) -> MemoryEntry:
        """One entry, by its id or an unambiguous beginning of it.

        Raises:
            MemoryStoreError: No entry, or several, have such an id.
        """
        self._refresh()
        matches = [key for key in self._history if key.startswith(parameter_id)] if parameter_id else []
        if len(matches) > 1 and parameter_id not in matches:
            raise MemoryStoreError(f"{len(matches)} remembered parameters have ids that begin with {parameter_id!r}: give more of it")
        found = self._fold(parameter_id if parameter_id in matches else matches[0]) if matches else None
        if found is None:
            raise MemoryStoreError(f"no order parameter with id {parameter_id!r} is remembered: `discover memory list` shows the ids")
        return found

    def search(self, text: str, n: int = 10) -> list[Hit]:
        """The `n` entries whose texts are nearest to a free text, nearest first."""
        found = self._opened_index().query(text, n)
        self._take_in()
        return [Hit(entry, similarity) for key, similarity in found if (entry := self._fold(key)) is not None]

    def near_duplicates(
        self, parameter: OrderParameter, label_vector: Labels | None = None, *, thresholds: Thresholds = THRESHOLDS
    ) -> list[Duplicate]:
        """Remembered parameters that are the same thing as this one, most similar first (see `memory_duplicates.near_duplicates`).

        Args:
            parameter: The candidate.
            label_vector: Its levels on responses, `text_key -> level`.
            thresholds: From which similarities on two are one.
        """
        self._refresh()
        return near_duplicates(parameter, label_vector, self.entries(), self._cosines(parameter), thresholds)

    def ranked_for(self, change_signature: Mapping[str, float]) -> list[MemoryEntry]:
        """Accepted parameters, those most likely to matter on a run with this change signature first (for transfer).

        Ranked by the largest cosine between the run's signature and the signature of a run that accepted the parameter, over the
        measures both have; equal ones by their best share; those that cannot be compared come last.

        Args:
            change_signature: Shift (after minus before) of each baseline measure, by name, in standard units.
        """

        def rank(entry: MemoryEntry) -> tuple[float, float]:
            near = [value for run in entry.runs if (value := _accepted_nearness(run, change_signature)) is not None]
            share = entry.best_share
            return -max(near, default=-2.0), -((share.estimate if share else None) or 0.0)

        return sorted((entry for entry in self.entries() if entry.status == "accepted"), key=rank)

    def forget(self, parameter_id: str, reason: str = "") -> MemoryEntry:
        """Write a tombstone: the parameter is no longer listed, found or transferred until it is found anew.

        The ledger keeps its lines. An export, or a team's server, passes the tombstone on.

        Returns:
            The entry as it was.

        Raises:
            MemoryStoreError: No such parameter is remembered.
        """
        entry = self.entry(parameter_id)
        if entry.status == "forgotten":
            raise MemoryStoreError(f"{entry.id} ({entry.parameter.name}) is forgotten already")
        at = max(now(), entry.last_at)  # a finding from a machine whose clock runs ahead is forgotten as well
        self.append(MemoryEvent("forgotten", parameter_id=entry.id, by="reviewer", reason=reason, at=at))
        return entry

    def rebuild(self) -> int:
        """Build the index anew from the ledger.

        Returns:
            Entries in it.
        """
        self._opened_index().rebuild("asked for")
        return len(self)

    def verify(self) -> Verification:
        """Check every line of the ledger and every vector of the index, and put the index right where it is wrong."""
        index = self._opened_index()
        wrong = index.wrong()
        if wrong:
            index.rebuild(f"{len(wrong)} entries were missing or wrong")
        left = set(index.wrong())
        wordings = self._current_wordings()
        return Verification(
            ledger=self._ledger.path,
            events=len(self._ledger),
            entries=len(wordings),
            indexed=len(wordings.keys() - left),
            damaged=tuple(self._ledger.damaged),
            repaired=tuple(key for key in wrong if key not in left),
        )

    def export(self, path: str | Path) -> int:
        """Write all readable events to a JSONL file (`-`: to stdout), tombstones included.

        Returns:
            How many.

        Raises:
            MemoryStoreError: The file cannot be written.
        """
        self._refresh()
        lines = [header(), *(stored.line for stored in self._ledger.events)]
        payload = b"".join(line + b"\n" for line in lines)
        if str(path) == "-":
            sys.stdout.buffer.write(payload)
            sys.stdout.buffer.flush()
            return len(lines) - 1
        target = Path(path).expanduser()
        fresh = target.with_name(target.name + ".new")
        try:
            fresh.write_bytes(payload)
            fresh.replace(target)
        except OSError as problem:
            raise MemoryStoreError(f"{target} cannot be written: {problem.strerror or problem}") from None
        return len(lines) - 1

    def import_(self, path: str | Path) -> Imported:
        """Merge an export, or another memory's ledger, without duplicates; damaged lines are left out and reported.

        Raises:
            MemoryStoreError: The file cannot be read or is no export of a memory.
        """
        source = Path(path).expanduser()
        events, damaged = read_lines(source)
        if damaged:
            numbers = ", ".join(str(line.number) for line in damaged[:10])
            self._on_notice(f"memory: {len(damaged)} damaged lines of {source} left out: {numbers} ({damaged[0].reason})")
        distinct = {stored.id: stored for stored in events}
        added = len(self._ledger.append(list(distinct.values())))
        self._take_in()
        return Imported(added=added, known=len(distinct) - added, damaged=tuple(damaged))

    def _cosines(self, parameter: OrderParameter) -> dict[str, float]:
        """Similarity in words to the nearest entries, always by the default embedder, for which the threshold was measured."""
        near = [hit.entry for hit in self.search(search_text(parameter), TEXT_CANDIDATES)]
        own, *others = NgramEmbedder().embed([search_text(parameter), *(entry.text for entry in near)])
        return {entry.id: float(own @ other) for entry, other in zip(near, others, strict=True)}

    def _make_index(self, url: str | None, folder: Path, embedder: str | None) -> Index:
        wanted = Wanted(self._current_wordings, self._text)
        if url is None:
            return LocalIndex(folder, wanted, embedder, self._on_notice)
        return ServerIndex(url, wanted, self._ledger, embedder, self._on_notice)

    def _start(self, rebuild: bool) -> None:
        index = self._opened_index()
        if rebuild:
            index.rebuild("asked for")
        else:
            index.check()
        self._take_in()

    def _opened_index(self) -> Index:
        if self._index is None:
            raise MemoryStoreError(f"the memory at {self._ledger.path.parent} is closed")
        return self._index

    def _release(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
        self._ledger.close()

    def _refresh(self) -> None:
        self._ledger.refresh()
        self._take_in()

    def _take_in(self) -> None:
        """Sort the ledger's new events by parameter and drop what they make out of date."""
        with self._guard:
            if self._ledger.starts != self._starts:  # the ledger was replaced under us
                self._history.clear()
                self._tombstones.clear()
                self._folded.clear()
                self._taken, self._wordings, self._starts = 0, None, self._ledger.starts
            events = self._ledger.events[self._taken :]
            self._taken += len(events)
            for stored in events:
                for key in {stored.parameter_id, stored.successor_id} - {""}:
                    self._history.setdefault(key, []).append(stored)
                    self._folded.pop(key, None)
                if stored.kind == "forgotten":
                    known = self._tombstones.get(stored.parameter_id)
                    if known is None or stored.at >= known.at:
                        self._tombstones[stored.parameter_id] = stored
                self._wordings = None

    def _placed(self, event: MemoryEvent) -> MemoryEvent:
        """The event after the parameter's last tombstone, so that the same finding made anew is a new event."""
        tombstone = self._tombstones.get(event.parameter_id)
        return replace(event, after=tombstone.id) if tombstone is not None and not event.after else event

    def _fold(self, parameter_id: str) -> MemoryEntry | None:
        with self._guard:
            if parameter_id not in self._folded:
                self._folded[parameter_id] = fold(parameter_id, self._history.get(parameter_id, ()))
            return self._folded[parameter_id]

    def _current_wordings(self) -> Mapping[str, str]:
        """`parameter id -> hash of its words` of everything remembered; the same object until the ledger grows."""
        self._refresh()
        with self._guard:
            if self._wordings is None:
                found = ((key, remembered_wording(key, history)) for key, history in self._history.items())
                self._wordings = {key: wording for key, wording in found if wording is not None}
            return self._wordings

    def _text(self, parameter_id: str) -> str:
        entry = self._fold(parameter_id)
        return "" if entry is None else entry.text


def data_folder(url: str | None = None) -> Path:
    """The XDG data folder of the memory; one of its own per team server, for this machine's ledger."""
    from platformdirs import user_data_path

    folder = user_data_path(APPLICATION, appauthor=False) / "memory"
    if url is None:
        return folder
    host, port, _ = server_address(url)
    return folder / "servers" / f"{host}-{port}"


def _accepted_nearness(run: RunOutcome, signature: Mapping[str, float]) -> float | None:
    return nearness(run.signature, signature) if run.status == "accepted" else None


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
