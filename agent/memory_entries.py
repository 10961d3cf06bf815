"""What the memory knows of one order parameter: its events folded into one entry.

The fold depends on the set of events and their times, not on their order in the file, so two ledgers that were merged in either
direction give the same entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.memory_events import MemoryEvent, Provenance, StoredEvent
from agent.records import Estimate, EvidencePair, OrderParameter

EntryStatus = Literal["proposed", "judged", "accepted", "rejected", "vetoed", "reworded", "forgotten"]
STATUSES: tuple[EntryStatus, ...] = ("accepted", "judged", "proposed", "rejected", "reworded", "vetoed", "forgotten")


@dataclass(frozen=True)
class RunOutcome:
    """What one run said about a parameter.

    Attributes:
        provenance: Which run.
        status: The last decision on that run (`transferred` and `judged` mean: measured, not decided).
        shares: Estimates with intervals, by name; of the total change of that run's contrast.
        signature: The run's change signature (shift of each baseline measure, after minus before).
        reason: Why it was rejected, if it was.
        judge, proposer: Providers.
    """

    provenance: Provenance
    status: str
    shares: Mapping[str, Estimate] = field(default_factory=dict)
    signature: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    judge: str = ""
    proposer: str = ""


@dataclass(frozen=True)
class MemoryEntry:
    """One remembered order parameter.

    Attributes:
        parameter: Definition, question (the rubric), levels, direction and rule.
        status: `accepted` when any run accepted it; a reviewer's veto stands above that.
        verdict: The reviewer's last word, None when no reviewer looked.
        runs: One outcome per run, in order of time.
        labels: Levels on reference responses per judge: `judge -> text_key -> level` (None: judged, not read).
        templates: Hashes of the templates used, `judge` and `proposer`.
        reasons: Why it was rejected or vetoed, newest last.
        reworded_from, reworded_to: Ids of the parameter before and after a rewording.
        examples: Evidence pairs, if the memory keeps response text.
        first_at, last_at: Times of the first and last event (UTC, ISO 8601).
    """

    parameter: OrderParameter
    status: EntryStatus
    verdict: Literal["accepted", "vetoed"] | None = None
    runs: tuple[RunOutcome, ...] = ()
    labels: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    reworded_from: str | None = None
    reworded_to: str | None = None
    examples: tuple[EvidencePair, ...] = ()
    first_at: str = ""
    last_at: str = ""

    @property
    def id(self) -> str:
        """Id of the parameter (hash of question, levels and rule)."""
        return self.parameter.id

    @property
    def best_share(self) -> Estimate | None:
        """The largest share any run measured, None when none did."""
        measured = [run.shares["share"] for run in self.runs if "share" in run.shares and run.shares["share"].estimate is not None]
        return max(measured, key=lambda share: share.estimate or 0.0, default=None)

    @property
    def text(self) -> str:
        """What is embedded for search: name, definition and question."""
        return search_text(self.parameter)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, for `--json` and other programs."""
        share = self.best_share
        return {
            "id": self.id,
            "status": self.status,
            "verdict": self.verdict,
            "parameter": self.parameter.model_dump(mode="json"),
            "best_share": None if share is None else share.model_dump(),
            "runs": [
                {
                    **run.provenance.__dict__,
                    "status": run.status,
                    "reason": run.reason,
                    "judge": run.judge,
                    "proposer": run.proposer,
                    "shares": {name: value.model_dump() for name, value in run.shares.items()},
                    "signature": dict(run.signature),
                }
                for run in self.runs
            ],
            "labels": {judge: dict(levels) for judge, levels in self.labels.items()},
            "templates": dict(self.templates),
            "reasons": list(self.reasons),
            "reworded_from": self.reworded_from,
            "reworded_to": self.reworded_to,
            "examples": [pair.model_dump() for pair in self.examples],
            "first_at": self.first_at,
            "last_at": self.last_at,
        }


def search_text(parameter: OrderParameter) -> str:
    """The text of a parameter that is embedded: name, definition and question, one line each."""
    return "\n".join((parameter.name, parameter.definition, parameter.question))


def fold(parameter_id: str, history: Sequence[StoredEvent]) -> MemoryEntry | None:
    """Fold all events about one parameter.

    Args:
        parameter_id: The parameter.
        history: Every event that names it, as parameter or as successor, in ledger order.

    Returns:
        The entry, or None when no event holds the parameter's words.
    """
    words = _first_wording(parameter_id, history)
    if words is None:
        return None
    parameter = words.event.parameter if words.parameter_id == parameter_id else words.event.successor
    if parameter is None:
        return None
    visible = _visible(history)
    if not visible:
        times = [stored.at for stored in history]
        return MemoryEntry(parameter, "forgotten", first_at=min(times), last_at=max(times))
    ordered = [stored.event for stored in visible]
    about = [event for event in ordered if event.parameter_id == parameter_id]
    arrived = [event for event in ordered if event.parameter_id != parameter_id]
    left = [event for event in about if event.kind == "reworded"]
    verdicts = [event for event in about if event.by == "reviewer" and event.kind in ("accepted", "vetoed")]
    runs = _runs(about)
    return MemoryEntry(
        parameter=parameter,
        status=_status(about, verdicts, bool(left)),
        verdict=None if not verdicts else "accepted" if verdicts[-1].kind == "accepted" else "vetoed",
        runs=runs,
        labels=_labels(about),
        templates=_templates(about),
        reasons=tuple(dict.fromkeys(event.reason for event in about if event.reason)),
        reworded_from=arrived[-1].parameter_id if arrived else None,
        reworded_to=left[-1].successor.id if left and left[-1].successor else None,
        examples=tuple(pair for event in about for pair in event.examples),
        first_at=visible[0].at,
        last_at=visible[-1].at,
    )


def remembered_wording(parameter_id: str, history: Sequence[StoredEvent]) -> str | None:
    """Hash of the words the parameter's entry has, None when it is forgotten or has none; reads heads only."""
    words = _first_wording(parameter_id, history)
    if words is None or not _visible(history):
        return None
    return words.wording if words.parameter_id == parameter_id else words.successor_wording


def nearness(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Cosine of two change signatures over the measures both have.

    Returns:
        A number in [-1, 1]; None when they share no measure or one is all zero there (missing is not zero).
    """
    shared = one.keys() & other.keys()
    dot = sum(one[name] * other[name] for name in shared)
    size = math.sqrt(sum(one[name] ** 2 for name in shared) * sum(other[name] ** 2 for name in shared))
    return dot / size if size > 0 else None


def _first_wording(parameter_id: str, history: Sequence[StoredEvent]) -> StoredEvent | None:
    """The first event with the parameter's words: id fixes question, levels and rule, later ones differ in name or definition only."""
    carrying = [
        stored
        for stored in history
        if (stored.parameter_id == parameter_id and stored.wording) or (stored.successor_id == parameter_id and stored.successor_wording)
    ]
    return min(carrying, key=_order, default=None)


def _visible(history: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Events after the last tombstone, in order of time; a clock that runs late on another machine does not hide a newer finding."""
    last = max((stored for stored in history if stored.kind == "forgotten"), key=_order, default=None)
    others = sorted((stored for stored in history if stored.kind != "forgotten"), key=_order)
    return others if last is None else [stored for stored in others if stored.after == last.id or stored.at > last.at]


def _order(stored: StoredEvent) -> tuple[str, str]:
    return stored.at, stored.id


def _status(about: Sequence[MemoryEvent], verdicts: Sequence[MemoryEvent], reworded: bool) -> EntryStatus:
    kinds = {event.kind for event in about}
    if reworded:
        return "reworded"
    if verdicts:
        return "accepted" if verdicts[-1].kind == "accepted" else "vetoed"
    for status in ("accepted", "vetoed", "rejected"):
        if status in kinds:
            return status
    return "judged" if kinds & {"judged", "transferred"} else "proposed"


def _runs(about: Sequence[MemoryEvent]) -> tuple[RunOutcome, ...]:
    by_run: dict[tuple[str, str], list[MemoryEvent]] = {}
    for event in about:
        if event.provenance != Provenance():
            by_run.setdefault((event.provenance.run_digest or event.provenance.run, event.provenance.contrast), []).append(event)
    return tuple(_outcome(events) for events in by_run.values())


def _outcome(events: Sequence[MemoryEvent]) -> RunOutcome:
    decided = [event for event in events if event.kind in ("accepted", "rejected", "vetoed")]
    last = (decided or list(events))[-1]
    return RunOutcome(
        provenance=last.provenance,
        status=last.kind,
        shares={name: share for event in events for name, share in event.shares.items()},
        signature={name: shift for event in events for name, shift in event.signature.items()},
        reason=last.reason,
        judge=_latest(events, "judge"),
        proposer=_latest(events, "proposer"),
    )


def _labels(about: Sequence[MemoryEvent]) -> dict[str, dict[str, int | None]]:
    labels: dict[str, dict[str, int | None]] = {}
    for event in about:
        if event.labels:
            labels.setdefault(event.judge, {}).update(event.labels)
    return labels


def _templates(about: Sequence[MemoryEvent]) -> dict[str, str]:
    found = {"judge": _latest(about, "judge_template"), "proposer": _latest(about, "proposer_template")}
    return {role: digest for role, digest in found.items() if digest}


def _latest(events: Sequence[MemoryEvent], name: str) -> str:
    return next((str(value) for event in reversed(events) if (value := getattr(event, name))), "")
