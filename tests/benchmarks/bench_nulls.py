"""Does the loop accept anything when nothing changed? Halves of single sides of real answers, and the power twin of the same size."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agent.config import make_config
from agent.graph import run_loop
from agent.judge import make_judge
from agent.null_runs import halved
from agent.proposer import make_proposer
from agent.workbench import Workbench
from tests.benchmarks.section import Section
from tracing import Recording, load

FILES = ("em_base_vs_bad_qwen7b", "em_base_vs_organisms_qwen14b")
ALLOWED = 0.081
""".05 + 2 standard errors at 200 runs."""
POWER = 0.95


@dataclass(frozen=True)
class Side:
    """One side of one file, and the base side it is held against in the power twin."""

    file: str
    name: str
    recording: Recording


def sides(folder: Path) -> list[Side]:
    """Every side of every file."""
    out = []
    for file in FILES:
        recording = load(folder / file / "rows.jsonl")
        out += [Side(file, name, recording) for name in dict.fromkeys(recording.responses.side or ())]
    return out


def null_recording(side: Side, seed: int) -> Recording:
    """Two random halves of one side."""
    rows = np.flatnonzero(np.array(side.recording.responses.side) == side.name)
    return halved(side.recording, rows, np.random.default_rng([seed, 77]))


def twin_recording(side: Side, seed: int) -> Recording:
    """Base and a fine-tuned side, each cut down at random to the size of a half, prompt by prompt."""
    names = np.array(side.recording.responses.side)
    tuned = side.name if side.name != "base" else next(n for n in dict.fromkeys(names) if n != "base")
    keys = np.array(side.recording.responses.prompt_key)
    rng = np.random.default_rng([seed, 78])
    kept = []
    for name in ("base", tuned):
        for key in np.unique(keys):
            rows = rng.permutation(np.flatnonzero((names == name) & (keys == key)))
            kept.append(rows[: (rows.size + 1) // 2])
    rows = np.sort(np.concatenate(kept))
    part = side.recording.responses.take(rows)
    renamed = tuple("half A" if s == "base" else "half B" for s in part.side or ())
    return Recording(f"{side.file} (twin)", side.recording.digest, replace(part, side=renamed, step=None))


def accepted(recording: Recording, seed: int) -> int:
    """How many order parameters the whole loop accepts."""
    config = make_config(run=recording.source, before="half A", after="half B", seed=seed, memory="off")
    with tempfile.TemporaryDirectory() as folder:
        work = Workbench(recording, config, Path(folder), make_proposer("embedded"), make_judge("embedded"))
        return len(run_loop(work)["accepted"])


def rate(make: Callable[[Side, int], Recording], all_sides: list[Side], seeds: range) -> Iterator[tuple[Side, bool]]:
    """For each seed, one side in turn: whether anything was accepted."""
    for seed in seeds:
        side = all_sides[seed % len(all_sides)]
        yield side, accepted(make(side, seed), seed) > 0


def run(quick: bool) -> Section:
    """False acceptance over halvings of single sides (at most 8.1%) and power at the same sizes (at least 95%)."""
    where = os.environ.get("OPD_DATA")
    if not where:
        raise SystemExit("bench nulls: set OPD_DATA to the folder with the real answers (../shared/data)")
    all_sides = sides(Path(where))
    seeds = range(12 if quick else 200)
    rows, totals = [], {}
    for title, make in (("null: halves of one side", null_recording), ("twin: real sides, same sizes", twin_recording)):
        found = []
        for side, hit in rate(make, all_sides, seeds):
            found.append((side, hit))
            print(f"{title}: {len(found)} of {len(seeds)}, accepted in {sum(h for _, h in found)}", end="\r", file=sys.stderr, flush=True)
        totals[title] = np.mean([hit for _, hit in found])
        for side in all_sides:
            hits = [hit for s, hit in found if s is side]
            rows.append([title, side.file, side.name, str(len(hits)), str(sum(hits)), f"{100 * np.mean(hits):.1f}%"])
        rows.append([title, "all", "all", str(len(found)), str(sum(hit for _, hit in found)), f"{100 * totals[title]:.1f}%"])
    null, twin = totals.values()
    bar = (
        f"Bar: something accepted in at most {100 * ALLOWED:.1f}% of nulls (found {100 * null:.1f}%) and at least "
        f"{100 * POWER:.0f}% of twins (found {100 * twin:.1f}%): {'met' if null <= ALLOWED and twin >= POWER else 'NOT met'}."
    )
    columns = ("kind", "file", "side", "runs", "with something accepted", "rate")
    return Section("Nulls and power on real answers", "OPD_DATA=../shared/data python -m tests.benchmarks --only nulls", columns, rows, bar)
