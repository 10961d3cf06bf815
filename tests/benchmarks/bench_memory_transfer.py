"""Does a memory make the next run cheaper? Judged responses until 90% of a cold start's joint share, on a second organism.

Counted is everything the judge reads, second readings included. A judge that is paid is raced (`--race auto` does so); both are shown.
The second organisms are recorded once and kept beside those of the other benchmarks (four minutes each).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.config import make_config
from agent.graph import run_loop
from agent.llm.scripted import Script, ScriptedJudge, ScriptedProposer
from agent.organism_recording import OrganismRecipe, record_organism
from agent.proposer import make_proposer
from agent.records import Findings
from agent.remembering import recall, remember
from agent.workbench import Progress, Workbench
from probes.explained_share import explained
from tests.benchmarks.candidate_bank import best_first, in_any_order
from tests.benchmarks.organisms import folder_of
from tests.benchmarks.section import Section
from tracing import Recording, load

FIRST = Path(__file__).parents[1] / "runs" / "organism"
SEEDS = 5
REACHED = 0.9
BAR = 0.5
KAPPA = 0.8
Race = Literal["off", "on"]
READING: dict[Race, str] = {"off": "whole", "on": "raced"}
BANKS: dict[str, Callable[[Workbench, dict[str, float]], Script]] = {"any order": in_any_order, "best first": best_first}
WORDS = "lists of words"


@dataclass(frozen=True)
class Setting:
    """What the second organisms are and who proposes.

    Attributes:
        proposals: How the twelve candidates of the bank come (`any order`, `best first`), or lists of words of the embedded proposer.
        recipe: How the second organisms are recorded.
        organisms: Their seeds.
        barred: Whether the bar is about this setting.
    """

    proposals: str
    recipe: OrganismRecipe
    organisms: tuple[int, ...]
    barred: bool = False


SMALL = OrganismRecipe(questions_per_domain=3, responses_per_prompt=1)
SETTINGS = (
    Setting("any order", OrganismRecipe(), (1, 2, 3, 4), barred=True),
    Setting("best first", OrganismRecipe(), (1, 2, 3, 4)),
    Setting(WORDS, OrganismRecipe(), (1, 2, 3, 4)),
    Setting(WORDS, SMALL, (1, 2, 3)),
)


@dataclass
class Course:
    """How a discovery went: judged responses so far and joint share of the accepted set on the confirm half, after each round.

    Attributes:
        judged, joint: One number a round.
        in_all: Judged responses when the loop had ended, with what is read once a candidate is accepted.
    """

    judged: list[int] = field(default_factory=list)
    joint: list[float] = field(default_factory=list)
    in_all: int = 0

    def until(self, share: float) -> int | None:
        """Judged responses until the joint share was reached; None when it never was."""
        return next((n for n, reached in zip(self.judged, self.joint, strict=True) if reached >= share), None)


def discovery(
    recording: Recording, proposals: str, memory: str, seed: int, race: Race, *, keep: bool = False, tell: Progress | None = None
) -> Course:
    """One whole loop with a judge that reads with kappa .8 and a memory (or "off").

    Args:
        recording: What is worked on.
        proposals: See `Setting`.
        memory: Its folder, or "off".
        seed: Of splits, orders, proposals and reading errors.
        race: Whether candidates may be given up.
        keep: Whether the memory is told at the end.
        tell: Receives the loop's events.
    """
    options = {"kappa": KAPPA, "seed": seed}
    rounds: list[tuple[int, list[str]]] = []

    def progress(name: str, numbers: dict[str, Any]) -> None:
        if name == "decided":
            rounds.append((judge.calls, numbers["accepted"]))
        if tell is not None:
            tell(name, numbers)

    with tempfile.TemporaryDirectory() as folder:
        config = make_config(run=recording.source, seed=seed, memory=memory, race=race)
        judge = ScriptedJudge(Script(f"noisy-{seed}", (), options))
        work = Workbench(recording, config, Path(folder), make_proposer("embedded"), judge, progress)
        if proposals != WORDS:
            script = BANKS[proposals](work, options)
            work.proposer, work.judge = ScriptedProposer(script), (judge := ScriptedJudge(script))
        recall(work)
        found: list[Findings] = []
        work.publish = found.append if keep else None
        run_loop(work)
        course = _course(work, rounds, judge.calls)
        if keep:
            remember(found[0], work)
        work.store.close()
        return course


def _course(work: Workbench, rounds: Iterable[tuple[int, list[str]]], in_all: int) -> Course:
    out, labels = Course(in_all=in_all), []
    by_name = {parameter.name: parameter for parameter in work.parameters.values()}
    for judged, accepted in rounds:
        labels += [work.labels(by_name[name])[work.confirm_rows] for name in accepted]
        part = explained(work.confirm, labels) if labels else None
        out.judged.append(judged)
        out.joint.append(part.change / part.total if part is not None else 0.0)
    return out


def second_organism(seed: int, recipe: OrganismRecipe) -> Recording:
    """A recording of another organism."""
    drawn = f"recorded-{recipe.questions_per_domain}x{recipe.responses_per_prompt}"
    folder = folder_of(seed, recipe.pretraining, recipe.fine_tuning) / drawn
    if not (folder / "truth.parquet").exists():
        record_organism(folder, seed=seed, recipe=recipe)
    return load(folder)


def compared(first: Recording, seconds: list[Recording], proposals: str, seed: int, race: Race) -> list[tuple[Course, Course]]:
    """A cold and a warm start on each second run: one seed of splits, proposals and reading errors."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        learnt = Path(folder) / "memory"
        discovery(first, proposals, str(learnt), seed, race, keep=True)
        for second in seconds:
            memory = Path(folder) / "copy"
            shutil.copytree(learnt, memory)
            cold, warm = (discovery(second, proposals, where, seed, race) for where in ("off", str(memory)))
            pairs.append((cold, warm))
            shutil.rmtree(memory)
    return pairs


@dataclass(frozen=True)
class World:
    """One second organism and seed: judged responses until 90% of the cold start's joint share was reached.

    Attributes:
        organism: Seed of the organism.
        cold, warm: Both courses.
    """

    organism: int
    cold: Course
    warm: Course

    @property
    def until(self) -> tuple[int, int | None]:
        """Cold and warm; None: the warm start ended below it."""
        share = REACHED * self.cold.joint[-1]
        return self.cold.until(share) or self.cold.judged[-1], self.warm.until(share)

    @property
    def spent(self) -> tuple[int, int]:
        """The same; where the warm start ended below, all that it judged."""
        cold, warm = self.until
        return cold, self.warm.in_all if warm is None else warm


def ratio(worlds: Sequence[World]) -> float:
    """Judged responses, warm over cold, of several worlds together."""
    cold, warm = np.sum([world.spent for world in worlds], axis=0)
    return float(warm / cold)


def row(setting: Setting, race: Race, worlds: Sequence[World]) -> list[str]:
    """One line of the table: all second organisms and seeds of a setting."""
    spent = np.array([world.spent for world in worlds])
    never = sum(world.until[1] is None for world in worlds)
    half = sum(world.until[1] is not None and warm <= BAR * cold for world, (cold, warm) in zip(worlds, spent, strict=True))
    prompts = setting.recipe.questions_per_domain * len(setting.recipe.pretraining.domains)
    return [
        setting.proposals,
        f"{prompts} x {setting.recipe.responses_per_prompt}",
        READING[race],
        f"{np.mean([world.cold.joint[-1] for world in worlds]):.2f}",
        f"{np.mean([world.warm.joint[-1] for world in worlds]):.2f}",
        f"{spent[:, 0].mean():,.0f}",
        f"{spent[:, 1].mean():,.0f}",
        f"{ratio(worlds):.2f}",
        ", ".join(f"{ratio([world for world in worlds if world.organism == k]):.2f}" for k in setting.organisms),
        f"{half} of {len(worlds)}; {never}",
        f"{sum(world.warm.in_all for world in worlds) / sum(world.cold.in_all for world in worlds):.2f}",
    ]


def worlds_of(first: Recording, setting: Setting, race: Race, quick: bool) -> list[World]:
    """Every second organism with every seed."""
    organisms = setting.organisms[: 1 if quick else None]
    seconds = [second_organism(seed, setting.recipe) for seed in organisms]
    by_seed = [compared(first, seconds, setting.proposals, seed, race) for seed in range(1 if quick else SEEDS)]
    return [World(organism, *pairs[k]) for pairs in by_seed for k, organism in enumerate(organisms)]


def run(quick: bool) -> Section:
    """Judged responses, warm against cold: over five seeds at most half as many, on every second organism."""
    first = load(FIRST)
    rows, missed = [], []
    for setting in SETTINGS:
        for race in READING:
            worlds = worlds_of(first, setting, race, quick)
            rows.append(row(setting, race, worlds))
            by_organism = [ratio([world for world in worlds if world.organism == k]) for k in dict.fromkeys(w.organism for w in worlds)]
            if setting.barred and (max(by_organism) > BAR or any(world.until[1] is None for world in worlds)):
                missed.append(READING[race])
    return Section(
        title="Memory: what a second run saves",
        command="python -m tests.benchmarks --only memory_transfer",
        columns=(
            "proposed",
            "second organisms",
            "read",
            "cold: joint share",
            "warm: joint share",
            "cold: judged until 90%",
            "warm: judged until then",
            "warm / cold",
            f"by organism ({', '.join(map(str, SETTINGS[0].organisms))})",
            "at most half; never",
            "judged in all, warm / cold",
        ),
        rows=rows,
        bar="TODO",
        notes=[],
    )
