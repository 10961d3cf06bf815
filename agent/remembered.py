"""Order parameters remembered from other runs, as a discovery uses them: a snapshot in its folder.

What the memory holds is written into the run's folder once, before the first round, and only that is used: the memory may grow
while the loop runs, or before it is resumed, and the findings stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.records import OrderParameter
from tracing.json_lines import append_lines, read_lines

FILE = "remembered.jsonl"


@dataclass(frozen=True)
class Remembered:
    """What the memory knew when this discovery started.

    Attributes:
        promising: Accepted on other runs, most likely to matter here first.
        tried: Rejected on other runs: shown to the proposer, never tried again.
    """

    promising: tuple[OrderParameter, ...] = ()
    tried: tuple[OrderParameter, ...] = ()


def write_snapshot(folder: Path, run_digest: str, promising: Sequence[OrderParameter], tried: Sequence[OrderParameter]) -> None:
    """Write the snapshot; the first line says which run it was taken for, so that an empty one exists too."""
    lines: list[dict[str, object]] = [{"kind": "snapshot", "run_digest": run_digest}]
    for kind, parameters in (("promising", promising), ("tried", tried)):
        lines += [{"kind": kind, "parameter": p.model_dump(mode="json")} for p in parameters]
    append_lines(folder / FILE, lines)


def read_snapshot(folder: Path) -> Remembered:
    """What `write_snapshot` wrote; nothing when the memory is off."""
    path = folder / FILE
    if not path.exists():
        return Remembered()
    lines = [line for _, line in read_lines(path)]

    def of(kind: str) -> tuple[OrderParameter, ...]:
        return tuple(OrderParameter(**line["parameter"] | {"origin": "memory"}) for line in lines if line["kind"] == kind)

    return Remembered(of("promising"), of("tried"))
