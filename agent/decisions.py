"""What a reviewer decides: one line per decision in `review.jsonl`, append-only, replayed to what stands.

A run's folder has one such file for all its discoveries; each line names the discovery it is about. Labels of single responses are about
the judge and hold for every discovery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from agent.errors import ConfigError
from agent.records import OrderParameter, Record
from tracing.json_lines import append_lines, read_lines

FILE = "review.jsonl"
DecisionKind = Literal["accept", "veto", "reword", "hypothesis", "withdraw", "label", "done"]


class Decision(Record):
    """One line of `review.jsonl`.

    Attributes:
        kind: `accept` confirms what the loop accepted, `veto` takes it out, `reword` replaces it by `parameter`, `hypothesis` adds
            `parameter`, `withdraw` takes back whatever was decided on `parameter_id`, `label` is a blinded label of one response,
            `done` ends a review.
        discovery: Digest of the discovery it is about.
        parameter_id: What it is about; for a hypothesis the id of `parameter`.
        parameter: New words.
        reason: Why, in the reviewer's words.
        text_key: Label: which response (hash of its text).
        level: Label: the level, None for "cannot tell".
        reviewer: Who decided, as given; may be empty.
        at: UTC time, ISO 8601.
    """

    kind: DecisionKind
    discovery: str
    parameter_id: str = ""
    parameter: OrderParameter | None = None
    reason: str = ""
    text_key: str = ""
    level: int | None = None
    reviewer: str = ""
    at: str = ""


@dataclass(frozen=True)
class Standing:
    """What decisions come to; of several on one order parameter the last one stands.

    Attributes:
        confirmed, vetoed: Reasons by parameter id.
        reworded: New words by the id of the old ones.
        added: Hypotheses, in the order they were added.
        labels: Level by (parameter id, text key); None for "cannot tell".
        reviews: Reviews that were ended.
    """

    confirmed: dict[str, str] = field(default_factory=dict)
    vetoed: dict[str, str] = field(default_factory=dict)
    reworded: dict[str, OrderParameter] = field(default_factory=dict)
    added: tuple[OrderParameter, ...] = ()
    labels: dict[tuple[str, str], int | None] = field(default_factory=dict)
    reviews: int = 0

    def of(self, parameter_id: str) -> str:
        """`accept`, `veto` or `reword`, or "" when nothing stands."""
        where = (("accept", {*self.confirmed}), ("veto", {*self.vetoed}), ("reword", {*self.reworded}))
        return next((kind for kind, ids in where if parameter_id in ids), "")


def append(folder: Path, decision: Decision) -> None:
    """Write one decision; it is on disk when this returns."""
    append_lines(folder / FILE, [decision.model_dump(mode="json", exclude_defaults=True) | {"kind": decision.kind}])


def read(folder: Path) -> list[Decision]:
    """Every decision of the folder, in order; none when there is no file.

    Raises:
        ConfigError: A line is no decision: which one, what was expected.
    """
    path = folder / FILE
    out = []
    for number, line in read_lines(path) if path.exists() else ():
        try:
            out.append(Decision.model_validate(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{path}:{number}: expected a reviewer's decision, found {where}: {first['msg'].lower()}") from None
    return out


def reviews_done(decisions: Sequence[Decision], discovery: str) -> int:
    """Reviews of this discovery that were ended."""
    return sum(d.kind == "done" and d.discovery == discovery for d in decisions)


def standing(decisions: Sequence[Decision], discovery: str, reviews: int | None = None) -> Standing:
    """Replay decisions.

    Args:
        decisions: All lines of the file.
        discovery: Which discovery is meant; labels count whatever discovery they were made in.
        reviews: Stop at the end of this review (0: nothing stands); None replays everything.
    """
    confirmed: dict[str, str] = {}
    vetoed: dict[str, str] = {}
    reworded: dict[str, OrderParameter] = {}
    added: dict[str, OrderParameter] = {}
    labels: dict[tuple[str, str], int | None] = {}
    done = 0
    for d in decisions:
        if done == reviews:
            break
        if d.kind == "label":
            labels[d.parameter_id, d.text_key] = d.level
        if d.discovery != discovery:
            continue
        if d.kind == "done":
            done += 1
        elif d.kind == "hypothesis" and d.parameter is not None:
            added[d.parameter.id] = d.parameter
        elif d.kind in ("accept", "veto", "reword", "withdraw"):
            for entries in (confirmed, vetoed, reworded, added):
                entries.pop(d.parameter_id, None)
            if d.kind == "reword" and d.parameter is not None:
                reworded[d.parameter_id] = d.parameter
            elif d.kind in ("accept", "veto"):
                {"accept": confirmed, "veto": vetoed}[d.kind][d.parameter_id] = d.reason
    return Standing(confirmed, vetoed, reworded, tuple(added.values()), labels, done)
