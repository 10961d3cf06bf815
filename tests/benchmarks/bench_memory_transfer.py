"""Does a memory make the next run cheaper? Judged responses until 90% of a cold start's joint share, on a second organism."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

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
SECOND_SEED = 1
REACHED = 0.9
KAPPA = 0.8


@dataclass(frozen=True)
class Outcome:
    """What one discovery cost.

    Attributes:
        joint: Joint share of the accepted set.
        judged: Judged responses in all.
        path: (judged responses so far, joint share) after each acceptance.
    """

    joint: float
    judged: int
    path: list[tuple[int, float]]

    def judged_until(self, share: float) -> float:
        """Judged responses until the joint share was reached; infinite when it never was."""
        return next((judged for judged, reached in self.path if reached >= share), float("inf"))


def judge(seed: int) -> ScriptedJudge:
    """A judge that reads every rule with kappa .8."""
    return ScriptedJudge(Script(f"noisy-{seed}", (), {"kappa": KAPPA, "seed": seed}))


def discovery(recording: Recording, memory: str, seed: int) -> Outcome:
    """One whole loop: the embedded proposer, the noisy judge, and the memory (or "off")."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(run=recording.source, seed=seed, memory=memory)
        work = Workbench(recording, config, Path(folder), make_proposer("embedded"), judge(seed))
        recall(work)
        found: list[Findings] = []
        work.publish = found.append
        state = run_loop(work)
        remember(found[0], work)
        return _outcome(work, [dict(t) for t in state["tests"]], state["accepted"])


def _outcome(work: Workbench, tests: list[dict[str, object]], accepted: list[str]) -> Outcome:
    """Judged responses and joint share after each round, from the ledger of tests."""
    rows, each = work.confirm_rows, len(work.texts)
    order = {str(t["parameter_id"]): int(str(t["round"])) for t in tests if t["accepted"]}
    path, judged, known = [], 0, set[str]()
    for turn in sorted({int(str(t["round"])) for t in tests}):
        new = {str(t["parameter_id"]) for t in tests if t["round"] == turn} - known
        known |= new
        judged += each * len(new)
        so_far = [p for p in accepted if order[p] <= turn]
        if so_far:
            joint = explained(work.confirm, [work.labels(p)[rows] for p in work.get(so_far)])
            path.append((judged, joint.change / joint.total))
    return Outcome(path[-1][1] if path else 0.0, judged, path)


def run(quick: bool) -> Section:
    """Judged responses, warm against cold, over five seeds (at most half as many)."""
    first = load(FIRST)
    recipe = OrganismRecipe(questions_per_domain=3, responses_per_prompt=1)
    rows, ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        second_folder = Path(folder) / "second"
        record_organism(second_folder, seed=SECOND_SEED, recipe=recipe)
        second = load(second_folder)
        for seed in range(1 if quick else 5):
            memory = str(Path(folder) / f"memory-{seed}")
            discovery(first, memory, seed)
            cold, warm = discovery(second, "off", seed), discovery(second, memory, seed)
            bar = REACHED * cold.joint
            ratio = warm.judged_until(bar) / cold.judged_until(bar)
            ratios.append(ratio)
            rows.append(
                [
                    str(seed),
                    f"{cold.joint:.2f}",
                    str(cold.judged_until(bar)),
                    f"{warm.joint:.2f}",
                    str(warm.judged_until(bar)),
                    f"{ratio:.2f}",
                ]
            )
    met = max(ratios) <= 0.5
    return Section(
        title="Memory: what a second run saves",
        command="python -m tests.benchmarks --only memory_transfer",
        columns=(
            "seed",
            "cold joint share",
            "judged until 90% of it (cold)",
            "warm joint share",
            "judged until then (warm)",
            "warm / cold",
        ),
        rows=rows,
        bar=(
            f"Bar: at most half as many judged responses (largest ratio {max(ratios):.2f}, median {np.median(ratios):.2f}): "
            f"{'met' if met else 'NOT met'}."
        ),
        notes=[f"Embedded proposer, scripted judge with kappa {KAPPA}; organism seed 0 first, organism seed {SECOND_SEED} second."],
    )
