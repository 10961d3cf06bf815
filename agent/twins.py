"""Is a candidate something that was decided already, in other words? Asked before any response of the run is judged on it.

Labels on shared texts decide first, words second (`memory_duplicates`). Shared by all are the reference responses; two exact rules
are compared on responses of this run as well, where reading them costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from agent.fingerprints import exact_levels, fingerprint, known_fingerprint, reference_texts
from agent.memory_duplicates import Duplicate, Labels, near_duplicates
from agent.memory_embedders import NgramEmbedder
from agent.memory_entries import MemoryEntry, search_text
from agent.records import OrderParameter
from agent.remembered import Known
from agent.workbench import Workbench

SHARED_RESPONSES = 200
"""Responses of this run on which two exact rules are compared: those whose text hashes come first."""


class Twins:
    """What a candidate is held against: decided here, tried elsewhere, or offered in the same round."""

    def __init__(self, work: Workbench) -> None:
        """Nothing yet; `add` what is known."""
        self._work = work
        self._entries: dict[str, MemoryEntry] = {}
        self._why: dict[str, str] = {}

    def add(self, parameters: Iterable[OrderParameter], why: str) -> None:
        """Order parameters of this run, and what became of them in words."""
        for parameter in parameters:
            self._put(parameter, {} if parameter.rule is not None else {self._work.judge.id: self._read(parameter)}, why)

    def add_known(self, remembered: Iterable[Known]) -> None:
        """Order parameters of other runs."""
        for known in remembered:
            self._put(known.parameter, known.labels, known.why)

    def twin_of(self, candidate: OrderParameter) -> str:
        """What a candidate of this run repeats, in words; empty when it is new."""
        return self._twin_of(candidate, {} if candidate.rule is not None else self._read(candidate))

    def twin_of_known(self, known: Known) -> str:
        """The same for one of another run; nothing is judged."""
        return self._twin_of(known.parameter, max(known.labels.values(), key=len, default={}))

    def _twin_of(self, candidate: OrderParameter, read: Labels) -> str:
        entries = [entry for entry in self._entries.values() if entry.id != candidate.id]
        if not entries:
            return ""
        own, *others = NgramEmbedder().embed([search_text(candidate), *(entry.text for entry in entries)])
        cosines = {entry.id: float(own @ other) for entry, other in zip(entries, others, strict=True)}
        found = near_duplicates(candidate, read if candidate.rule is None else self._exact(candidate), entries, cosines)
        return self._reason(found[0]) if found else ""

    def _put(self, parameter: OrderParameter, labels: Mapping[str, Labels], why: str) -> None:
        if parameter.id not in self._entries:
            own = labels if parameter.rule is None else {"rule": self._exact(parameter)}
            self._entries[parameter.id] = MemoryEntry(parameter, "judged", labels=own)
            self._why[parameter.id] = why

    def _read(self, parameter: OrderParameter) -> Labels:
        """What a judge says on the reference responses; where its answers come later, what it said so far."""
        at_once = all(asker.at_once for asker in self._work.askers if asker.role == "judge")
        return (fingerprint if at_once else known_fingerprint)(self._work, parameter)

    def _exact(self, parameter: OrderParameter) -> Labels:
        return exact_levels(parameter, self._texts)

    @cached_property
    def _texts(self) -> list[tuple[str, str, str, str]]:
        return [*reference_texts(), *sorted(self._work.texts)[:SHARED_RESPONSES]]

    def _reason(self, twin: Duplicate) -> str:
        how = f"labels correlate {twin.similarity:.2f}" if twin.how == "labels" else f"words are alike, {twin.similarity:.2f}"
        return f"says the same as “{twin.entry.parameter.name}” ({how}), {self._why[twin.entry.id]}"
