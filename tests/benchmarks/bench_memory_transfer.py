"""Does a memory make the next run cheaper? Judged responses until 90% of a cold start's joint share, on a second organism.

Counted is everything the judge reads, second readings included. A judge that is paid is raced (`--race auto` does so); both are shown.
The second organisms are recorded once and kept in `tests/benchmarks/.cache` (three minutes each).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.config import make_config
from agent.graph import run_loop
from agent.llm.scripted import Script, ScriptedJudge
from agent.organism_recording import OrganismRecipe, record_organism
from agent.proposer import make_proposer
from agent.records import Findings
from agent.remembering import recall, remember
from agent.workbench import Workbench
from probes.explained_share import explained
from tests.benchmarks.section import Section
from tracing import Recording, load

FIRST = Path(__file__).parents[1] / "runs" / "organism"
CACHE = Path(__file__).parent / ".cache"
SECOND_SEEDS = (1, 2, 3)
SEEDS = 5
REACHED = 0.9
BAR = 0.5
KAPPA = 0.8
Race = Literal["off", "on"]
READING: dict[Race, str] = {"off": "each candidate whole", "on": "raced, as when paid for"}


@dataclass
class Course:
    """How a discovery went: judged responses so far and joint share of the accepted set on the confirm half, after each round."""

    judged: list[int] = field(default_factory=list)
    joint: list[float] = field(default_factory=list)

    def until(self, share: float) -> int | None:
        """Judged responses until the joint share was reached; None when it never was."""
        return next((n for n, reached in zip(self.judged, self.joint, strict=True) if reached >= share), None)


def discovery(recording: Recording, memory: str, seed: int, race: Race) -> Course:
    """One whole loop: the embedded proposer, a judge that reads every rule with kappa .8, and the memory (or "off")."""
    judge = ScriptedJudge(Script(f"noisy-{seed}", (), {"kappa": KAPPA, "seed": seed}))
    rounds: list[tuple[int, list[str]]] = []

    def progress(name: str, numbers: dict[str, Any]) -> None:
        if name == "decided":
            rounds.append((judge.calls, numbers["accepted"]))

    with tempfile.TemporaryDirectory() as folder:
        config = make_config(run=recording.source, seed=seed, memory=memory, race=race)
        work = Workbench(recording, config, Path(folder), make_proposer("embedded"), judge, progress)
        recall(work)
        found: list[Findings] = []
        work.publish = found.append
        run_loop(work)
        remember(found[0], work)
        return _course(work, rounds)


def _course(work: Workbench, rounds: list[tuple[int, list[str]]]) -> Course:
    out, labels = Course(), []
    by_name = {parameter.name: parameter for parameter in work.parameters.values()}
    for judged, accepted in rounds:
        labels += [work.labels(by_name[name])[work.confirm_rows] for name in accepted]
        part = explained(work.confirm, labels) if labels else None
        out.judged.append(judged)
        out.joint.append(part.change / part.total if part is not None else 0.0)
    return out


def second_organism(seed: int) -> Recording:
    """A small recording of another organism: 18 prompts, one response each at 61 checkpoints."""
    folder = CACHE / f"organism-{seed}"
    if not (folder / "truth.parquet").exists():
        record_organism(folder, seed=seed, recipe=OrganismRecipe(questions_per_domain=3, responses_per_prompt=1))
    return load(folder)


def compared(first: Recording, seconds: list[Recording], seed: int, race: Race) -> list[tuple[Course, Course]]:
    """A cold and a warm start on each second run: one seed of splits, proposals and reading errors."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        learnt = Path(folder) / "memory"
        discovery(first, str(learnt), seed, race)
        for second in seconds:
            memory = Path(folder) / "copy"
            shutil.copytree(learnt, memory)
            pairs.append((discovery(second, "off", seed, race), discovery(second, str(memory), seed, race)))
            shutil.rmtree(memory)
    return pairs


def row(race: Race, organism: int, pairs: list[tuple[Course, Course]]) -> tuple[list[str], bool]:
    """One line of the table, and whether the bar is held on it."""
    bars = [REACHED * cold.joint[-1] for cold, _ in pairs]
    cold_until = [cold.until(bar) or cold.judged[-1] for (cold, _), bar in zip(pairs, bars, strict=True)]
    reached = [warm.until(bar) for (_, warm), bar in zip(pairs, bars, strict=True)]
    warm_until = [n if n is not None else warm.judged[-1] for n, (_, warm) in zip(reached, pairs, strict=True)]
    ratio = sum(warm_until) / sum(cold_until)
    each = [f"{w / c:.2f}" if n is not None else "never" for w, c, n in zip(warm_until, cold_until, reached, strict=True)]
    cells = [
        READING[race],
        str(organism),
        f"{np.mean([cold.joint[-1] for cold, _ in pairs]):.2f}",
        f"{np.mean([warm.joint[-1] for _, warm in pairs]):.2f}",
        f"{sum(cold_until):,}",
        f"{sum(warm_until):,}",
        f"{ratio:.2f}",
        ", ".join(each),
    ]
    return cells, ratio <= BAR and None not in reached


def run(quick: bool) -> Section:
    """Judged responses, warm against cold: over five seeds at most half as many, on every second organism."""
    first = load(FIRST)
    organisms = SECOND_SEEDS[: 1 if quick else None]
    seconds = [second_organism(seed) for seed in organisms]
    lines = []
    for race in READING:
        by_seed = [compared(first, seconds, seed, race) for seed in range(1 if quick else SEEDS)]
        lines += [row(race, organism, [pairs[k] for pairs in by_seed]) for k, organism in enumerate(organisms)]
    rows, met = [cells for cells, _ in lines], [held for _, held in lines]
    return Section(
        title="Memory: what a second run saves",
        command="python -m tests.benchmarks --only memory_transfer",
        columns=(
            "candidates are read",
            "second organism",
            "cold: joint share",
            "warm: joint share",
            "cold: judged until 90%",
            "warm: judged until then",
            "warm / cold",
            "by seed",
        ),
        rows=rows,
        bar=f"Bar: over five seeds at most half as many judged responses: {sum(met)} of {len(met)} rows.",
        notes=[
            f"Organism seed 0 first, another organism second; embedded proposer, scripted judge with kappa {KAPPA}; means and sums over "
            f"{1 if quick else SEEDS} seeds of splits, proposals and reading errors. 90% of the cold start's own joint share.",
            "Never: the warm start ended below it; all that it judged is counted.",
            "Where it is missed, the words remembered from organism 0 cover less of what changed in the other one (first warm round "
            ".34-.41, where lists fitted there reach .43-.64), and a round of five new candidates is paid for as well.",
        ],
    )
