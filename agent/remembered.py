"""Order parameters remembered from other runs, as a discovery uses them: a snapshot in its folder.

What the memory holds is written into the run's folder once, before the first round, and only that is used: the memory may grow
while the loop runs, or before it is resumed, and the findings stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.records import OrderParameter
from tracing.json_lines import append_lines, read_lines

FILE = "remembered.jsonl"
Kind = Literal["promising", "tried"]


@dataclass(frozen=True)
class Known:
    """What the memory knew of one order parameter when this discovery started.

    Attributes:
        parameter: The parameter, of origin `memory`.
        why: What became of it, in words ("rejected on another run: ...").
        labels: Its levels on the reference responses by judge; empty for exact rules, which are read whenever they are needed.
    """

    parameter: OrderParameter
    why: str = ""
    labels: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Remembered:
    """What the memory knew when this discovery started.

    Attributes:
        promising: Accepted on other runs, most likely to matter here first.
        tried: Tried in vain on other runs, nearest change first: shown to the proposer, never tried again.
    """

    promising: tuple[Known, ...] = ()
    tried: tuple[Known, ...] = ()


def write_snapshot(folder: Path, run_digest: str, remembered: Remembered) -> None:
    """Write the snapshot; the first line says which run it was taken for, so that an empty one exists too."""
    lines: list[dict[str, Any]] = [{"kind": "snapshot", "run_digest": run_digest}]
    lines += [_line("promising", known) for known in remembered.promising]
    lines += [_line("tried", known) for known in remembered.tried]
    append_lines(folder / FILE, lines)


def read_snapshot(folder: Path) -> Remembered:
    """What `write_snapshot` wrote; nothing when the memory is off."""
    path = folder / FILE
    if not path.exists():
        return Remembered()
    lines = [line for _, line in read_lines(path)]
    return Remembered(_of(lines, "promising"), _of(lines, "tried"))


def _line(kind: Kind, known: Known) -> dict[str, Any]:
    labels = {judge: dict(levels) for judge, levels in known.labels.items()}
    return {"kind": kind, "parameter": known.parameter.model_dump(mode="json"), "why": known.why, "labels": labels}


def _of(lines: Sequence[Mapping[str, Any]], kind: Kind) -> tuple[Known, ...]:
    return tuple(
        Known(OrderParameter(**line["parameter"] | {"origin": "memory"}), line.get("why", ""), line.get("labels", {}))
        for line in lines
        if line["kind"] == kind
    )
