"""One planted problem through the real loop, and what came of it held against what was planted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np

from agent.bench_problems import Problem
from agent.config import RaceChoice, RunConfig, make_config
from agent.graph import run_loop
from agent.llm.scripted import ScriptedJudge, ScriptedProposer
from agent.records import OrderParameter
from agent.workbench import Workbench
from probes.dissimilarity import total_change
from probes.explained_share import Explained, explained
from probes.resampling import Interval
from probes.shapley import shapley
from probes.synthetic import ExactShares
from probes.trajectory import course, onset

MOST_SHAPLEY = 6
"""Accepted sets larger than this are not split into Shapley parts: the truth alone needs 2^k sums."""
STANDS_IN = 0.02
"""Share of the change from which a distractor is more than noise."""
Windows = tuple[Sequence[int], Sequence[int]]
Row = dict[str, Any]
"""What one problem gave, as plain values: one line of `results.jsonl`."""


def bench_config(problem: Problem, n_permutations: int, race: RaceChoice = "auto") -> RunConfig:
    """The loop's defaults, except that it never stops because enough is explained: every candidate gets its chance."""
    sides = {} if problem.world.cell.likelihoods else {"before": "before", "after": "after"}
    return make_config(run=problem.id, seed=problem.seed, n_permutations=n_permutations, residual=0.0, memory="off", race=race, **sides)


def solve(problem: Problem, n_permutations: int = 2000, race: RaceChoice = "auto") -> Row:
    """Run the loop and hold everything it says against the truth.

    Args:
        problem: What is to be found.
        n_permutations: Of each test.
        race: Whether candidates may be given up before they are read to the end.

    Returns:
        Verdict on every candidate, estimates with truth and interval, onsets, judge calls, seconds.
    """
    judge = ScriptedJudge(problem.script)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = bench_config(problem, n_permutations, race)
        work = Workbench(problem.recording, config, Path(folder), ScriptedProposer(problem.script), judge)
        state = run_loop(work)
        row = _row(problem, work, dict(state))
        work.store.close()
    return row | {"calls": judge.calls, "seconds": time.perf_counter() - began}


def _row(problem: Problem, work: Workbench, state: dict[str, Any]) -> Row:
    number = {c.parameter.id: j for j, c in enumerate(problem.script.candidates)}
    tests = {number[t["parameter_id"]]: t for t in state.get("tests", [])}
    accepted = [number[i] for i in state["accepted"]]
    spec = work.chosen[0]
    windows = (spec.left, spec.right) if spec.left else ((0,), (1,))
    exact = problem.world.shares(*windows)
    tested = [j for j in sorted(tests) if problem.planted[j].kind == "true" and tests[j]["p_value"] is not None]
    return {
        "problem": problem.id,
        "cell": problem.world.cell.name,
        "detectable": bool(state["detectable"]),
        "rounds": state["round"],
        "candidates": described(problem, windows, accepted, tests),
        "estimates": _estimates(problem, work, exact, accepted, tested) if state["detectable"] else [],
        "times": _times(problem, work, tested, accepted),
    }


def answered(problem: Problem, accepted: Sequence[int]) -> Row:
    """A row for a tool that only says what it accepts, of all candidates at once: other rules, other programs."""
    windows = ((0,), (problem.world.cell.n_steps - 1,))
    return {
        "problem": problem.id,
        "cell": problem.world.cell.name,
        "detectable": True,
        "rounds": None,
        "candidates": described(problem, windows, accepted, {j: {"round": None} for j in range(len(problem.order))}),
        "estimates": [],
        "times": [],
        "calls": None,
        "seconds": None,
    }


def described(problem: Problem, windows: Windows, accepted: Sequence[int], tests: dict[int, dict[str, Any]]) -> list[Row]:
    """Every candidate in the order of offering: what it is, its exact unique share, whether it was tested and accepted.

    A distractor *stands in* when, read without error, it shows `STANDS_IN` of the change beyond what was accepted before it: it goes
    with a parameter that was not found yet. Such a one is neither right nor false.
    """
    exact, clean = problem.world.shares(*windows), problem.world.shares(*windows, as_read=False)
    true = [j for j, p in enumerate(problem.planted) if p.kind == "true"]
    unit = exact.total if problem.world.cell.likelihoods else 1.0
    joint = exact.change(_worldly(problem, true))
    out = []
    for j, planted in enumerate(problem.planted):
        rest = exact.change(_worldly(problem, [k for k in true if k != j]))
        own = joint - rest if j in true else exact.change(_worldly(problem, [*true, j])) - joint
        test = tests.get(j)
        place = accepted.index(j) if j in accepted else None
        before = _worldly(problem, accepted[: place or 0])
        gain = clean.change([*before, problem.order[j]]) - clean.change(before)
        out.append(
            {
                "id": f"m{j}",
                "kind": planted.kind,
                "of": None if planted.of is None else f"m{planted.of}",
                "unique": own / unit if unit > 0 else 0.0,
                "tested": test is not None,
                "round": None if test is None else test["round"],
                "accepted": place is not None,
                "place": place,
                "stands_in": planted.kind == "distractor" and place is not None and gain >= STANDS_IN * clean.total,
            }
        )
    return out


def _worldly(problem: Problem, numbers: Sequence[int]) -> list[int]:
    return [problem.order[j] for j in numbers]


def _estimates(problem: Problem, work: Workbench, exact: ExactShares, accepted: list[int], tested: list[int]) -> list[Row]:
    """Shares (D[O] without likelihoods) on the confirm half, by the code the report uses, each with its exact value."""
    known = problem.world.cell.likelihoods
    unit = exact.total if known else 1.0
    rows = work.confirm_rows
    label = {j: work.labels(problem.script.candidates[j].parameter)[rows] for j in {*tested, *accepted}}

    def entry(quantity: str, truth: float, part: Explained, of: int | None = None) -> Row:
        interval = part.share_interval if known else part.change_interval
        return _entry(quantity, truth / unit if unit > 0 else float("nan"), interval, of, of in accepted)

    def true_change(numbers: Sequence[int]) -> float:
        return exact.change(_worldly(problem, numbers))

    out = [entry("share", true_change([j]), explained(work.confirm, [label[j]]), j) for j in tested]
    if known:
        out.append(_entry("D", exact.total, total_change(work.confirm), None, False))
    if not accepted:
        return out
    joint = explained(work.confirm, [label[j] for j in accepted])
    out.append(entry("joint", true_change(accepted), joint))
    for j in accepted:
        others = [k for k in accepted if k != j]
        rest = explained(work.confirm, [label[k] for k in others])
        out.append(entry("unique", true_change(accepted) - true_change(others), joint.minus(rest), j))
    if 1 < len(accepted) <= MOST_SHAPLEY:
        for j, part in zip(accepted, shapley(work.confirm, [label[j] for j in accepted]), strict=True):
            out.append(entry("Shapley", _shapley_truth(true_change, accepted, j), part, j))
    return out


def _shapley_truth(change: Callable[[Sequence[int]], float], players: Sequence[int], j: int) -> float:
    others, k = [p for p in players if p != j], len(players)
    return sum(
        factorial(r) * factorial(k - r - 1) / factorial(k) * (change([*subset, j]) - change(list(subset)))
        for r in range(k)
        for subset in combinations(others, r)
    )


def _entry(quantity: str, truth: float, interval: Interval, of: int | None, accepted: bool) -> Row:
    return {
        "quantity": quantity,
        "of": None if of is None else f"m{of}",
        "accepted": accepted,
        "truth": _plain(truth),
        "estimate": _plain(interval.estimate),
        "low": _plain(interval.low),
        "high": _plain(interval.high),
    }


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _times(problem: Problem, work: Workbench, tested: list[int], accepted: list[int]) -> list[Row]:
    """Along a run: the onset of every tested true parameter and the place of the transition, each with its exact value."""
    weights, detection = work.weights, work.chosen[1]
    if problem.world.cell.n_steps <= 2 or weights is None or detection is None:
        return []
    found = detection.transition
    out = []
    if found.found:
        out.append(_entry("transition", problem.world.transition_step(detection.curve.window), found.step, None, False))
    for j in tested:
        parameter: OrderParameter = problem.script.candidates[j].parameter
        level = work.labels(parameter).astype(float)
        moved = onset(course(weights, np.where(level < 0, np.nan, level), np.array(work.recording.steps)))
        if moved is not None:
            out.append(_entry("onset", problem.world.onsets[problem.order[j]], moved.t50, j, j in accepted))
    return out
