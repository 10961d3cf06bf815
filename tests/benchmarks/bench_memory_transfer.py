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
COUNTED = (
    f"Organism seed 0 (default recipe) first, another organism second; judge with kappa {KAPPA}; means over {SEEDS} seeds of splits, "
    "orders, proposals and reading errors. 90% of the cold start's own joint share on the confirm half; judged: all that the judge has "
    "read when the round ends that reaches it. Never: the warm start ended below it; all that it judged is counted. In all: until the "
    "loop ends."
)
NOTE = (
    "Twelve candidates as an LLM would word them (tests/benchmarks/candidate_bank.py), offered five a round in an order drawn from the "
    "seed, or, best first, as a proposer would who had read every response without error. One of them, harm, explains nearly all that is "
    "explained and means the same on every organism: this is what a memory saves that holds the right thing. Lists of words, which fit "
    "the organism they were found on, are measured apart (memory_transfer_words)."
)
COLUMNS = (
    "candidates",
    "second runs",
    "read",
    "cold: joint share",
    "warm: joint share",
    "cold: judged until 90%",
    "warm: judged until then",
    "warm / cold",
    "by organism",
    "at most half; never",
    "judged in all, warm / cold",
)
FULL, SMALL = OrganismRecipe(), OrganismRecipe(questions_per_domain=3, responses_per_prompt=1)


@dataclass(frozen=True)
class Second:
    """A second organism as it is recorded: the default recipe (as the first), or a small one."""

    seed: int
    recipe: OrganismRecipe

    @property
    def prompts_and_responses(self) -> str:
        """Prompts, and responses a checkpoint to each."""
        return f"{self.recipe.questions_per_domain * len(self.recipe.pretraining.domains)} x {self.recipe.responses_per_prompt}"

    def recording(self) -> Recording:
        """Recorded when it is not there yet."""
        drawn = f"recorded-{self.recipe.questions_per_domain}x{self.recipe.responses_per_prompt}"
        folder = folder_of(self.seed, self.recipe.pretraining, self.recipe.fine_tuning) / drawn
        if not (folder / "truth.parquet").exists():
            record_organism(folder, seed=self.seed, recipe=self.recipe)
        return load(folder)


SECONDS = (*(Second(seed, FULL) for seed in (2, 3)), *(Second(seed, SMALL) for seed in (1, 2, 3)))


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


def worlds(first: Recording, seconds: Sequence[Second], proposals: str, race: Race, seeds: int) -> list[World]:
    """A cold and a warm start on each second run, for each seed of splits, proposals and reading errors."""
    out = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            learnt, memory = Path(folder) / "memory", Path(folder) / "copy"
            discovery(first, proposals, str(learnt), seed, race, keep=True)
            for second in seconds:
                shutil.copytree(learnt, memory)
                cold, warm = (discovery(second.recording(), proposals, where, seed, race) for where in ("off", str(memory)))
                out.append(World(second, cold, warm))
                shutil.rmtree(memory)
    return out


@dataclass(frozen=True)
class World:
    """One second organism and seed: judged responses until 90% of the cold start's joint share was reached.

    Attributes:
        second: The organism.
        cold, warm: Both courses.
    """

    second: Second
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


def ratio(of: Sequence[World]) -> float:
    """Judged responses, warm over cold, of several worlds together."""
    cold, warm = np.sum([world.spent for world in of], axis=0)
    return float(warm / cold)


def row(proposals: str, race: Race, of: Sequence[World]) -> list[str]:
    """One line of the table: all second organisms of one recipe, all seeds."""
    seconds = list(dict.fromkeys(world.second for world in of))
    spent = np.array([world.spent for world in of])
    never = sum(world.until[1] is None for world in of)
    half = sum(world.until[1] is not None and warm <= BAR * cold for world, (cold, warm) in zip(of, spent, strict=True))
    return [
        proposals,
        seconds[0].prompts_and_responses,
        READING[race],
        f"{np.mean([world.cold.joint[-1] for world in of]):.2f}",
        f"{np.mean([world.warm.joint[-1] for world in of]):.2f}",
        f"{spent[:, 0].mean():,.0f}",
        f"{spent[:, 1].mean():,.0f}",
        f"{ratio(of):.2f}",
        ", ".join(f"{second.seed}: {ratio([world for world in of if world.second == second]):.2f}" for second in seconds),
        f"{half} of {len(of)}; {never}",
        f"{sum(world.warm.in_all for world in of) / sum(world.cold.in_all for world in of):.2f}",
    ]


def by_recipe(found: Sequence[World]) -> list[list[World]]:
    """Worlds whose second runs were recorded alike, together."""
    recipes = list(dict.fromkeys(world.second.prompts_and_responses for world in found))
    return [[world for world in found if world.second.prompts_and_responses == recipe] for recipe in recipes]


def held(of: Sequence[World]) -> bool:
    """Whether at most half as many are judged on every organism, over its seeds, and every warm start gets there."""
    by_organism = [ratio([world for world in of if world.second == second]) for second in {world.second for world in of}]
    return max(by_organism) <= BAR and all(world.until[1] is not None for world in of)


def run(quick: bool) -> Section:
    """Judged responses, warm against cold: over five seeds at most half as many, on every second organism."""
    first, rows, barred = load(FIRST), [], []
    for proposals, races in (("any order", tuple(READING)), ("best first", ("on",))):
        for race in races:
            found = worlds(first, SECONDS[: 1 if quick else None], proposals, race, 1 if quick else SEEDS)
            for of in by_recipe(found):
                rows.append(row(proposals, race, of))
                barred.append(f"{proposals}, {of[0].second.prompts_and_responses}, {READING[race]}: {'met' if held(of) else 'NOT met'}")
    return Section(
        title="Memory: what a second run saves",
        command="python -m tests.benchmarks --only memory_transfer",
        columns=COLUMNS,
        rows=rows,
        bar=f"Bar (scripted proposer and judge): on each organism, over {SEEDS} seeds, at most half as many judged until 90%, and "
        f"no warm start that ends below. {'; '.join(barred)}.",
        notes=(COUNTED, NOTE),
    )
