"""Do the intervals of onset, t10, t90 and the transition's place cover? Planted runs in which every prompt changes at a time of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.resampling import Interval
from probes.synthetic import PlantedRun, draw, exact_course, exact_curve, planted_run, staggered_course
from probes.trajectory import Course, Onset, course, onset, step_weights
from probes.transition import TransitionCurve, find_transitions, transition_curve
from tests.benchmarks.section import Section

POPULATION = 600
"""Prompts in each world; those of a run are drawn from them, and the truth is that of all of them."""
QUANTITIES = ("t10", "t50", "t90", "transition")


@dataclass(frozen=True)
class World:
    """A population of prompts with its exact onset and place of the transition.

    Attributes:
        run: The tables; prompts change around `midpoint`, each at a time of its own.
        truth: Exact value of each quantity.
        anchors: Checkpoints that are sampled.
        window: L of the transition curve.
        kappa: How well the label is read.
    """

    run: PlantedRun
    truth: dict[str, float]
    anchors: tuple[int, ...]
    window: int
    kappa: float


@dataclass(frozen=True)
class Plan:
    """What a world is made of: how fast and how unevenly it changes, how large the label's effect is."""

    name: str
    n_steps: int
    midpoint: float
    width: float
    spread: float
    effect: float
    anchors: tuple[int, ...]
    window: int
    kappa: float = 1.0


PLANS = (
    Plan("31 checkpoints, sharp", 31, 14.3, 1.0, 0.5, 0.9, (0, 10, 15, 20, 30), 4),
    Plan("31 checkpoints, slow", 31, 14.3, 2.0, 1.5, 0.9, (0, 10, 15, 20, 30), 4),
    Plan("61 checkpoints, prompts far apart", 61, 30.0, 4.0, 3.0, 0.9, (0, 15, 25, 30, 35, 45, 60), 8),
    Plan("31 checkpoints, small effect", 31, 14.3, 2.0, 1.0, 0.4, (0, 10, 15, 20, 30), 4),
    Plan("31 checkpoints, judge kappa .7", 31, 14.3, 2.0, 1.0, 0.9, (0, 10, 15, 20, 30), 4, 0.7),
)
SIZES = ((8, 10), (12, 8), (20, 6), (40, 4))


def world(plan: Plan, seed: int) -> World:
    """A world by its plan."""
    rng = np.random.default_rng(seed)
    midpoints = plan.midpoint + plan.spread * rng.standard_normal(POPULATION)
    moving = staggered_course(plan.n_steps, midpoints, plan.width)
    run = planted_run(rng, n_prompts=POPULATION, effects=(plan.effect, 0.5), n_outcomes=200, course=moving)
    steps = np.arange(plan.n_steps)
    level = exact_course(run, run.labels[0].astype(float))
    exact = onset(Course(steps, level, level.mean(axis=0), steps, steps, np.full(level.shape, np.inf), 0))
    assert exact is not None
    d = exact_curve(run, plan.window)
    splits = np.arange(plan.window, plan.n_steps - plan.window + 1)
    curve = TransitionCurve(plan.window, splits, splits - 0.5, d, np.full(d.shape, np.inf), np.ones(d.shape), np.zeros(d.shape))
    truth = {name: interval.estimate for name, interval in _places(exact).items()}
    return World(run, truth | {"transition": find_transitions(curve)[0].step.estimate}, plan.anchors, plan.window, plan.kappa)


def _places(found: Onset) -> dict[str, Interval]:
    return {"t10": found.t10, "t50": found.t50, "t90": found.t90}


def estimates(of: World, n_prompts: int, n_each: int, rng: np.random.Generator) -> dict[str, Interval]:
    """Every quantity with its interval from one run: what is missing was not found."""
    run = of.run.at_prompts(rng.choice(POPULATION, n_prompts, replace=False))
    sample = draw(run, of.anchors, n_each, rng)
    steps = np.arange(len(run.course))
    label = sample.labels_of(run)[0]
    level = np.where(rng.random(label.size) < of.kappa, label, rng.integers(0, 5, label.size)).astype(float)
    moved = onset(course(step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt), level, steps))
    curve = transition_curve(sample.log_likelihood, sample.drawn_at, sample.prompt, steps, of.window)
    peak = find_transitions(curve)[0]
    return ({} if moved is None else _places(moved)) | ({"transition": peak.step} if peak.found else {})


def cell(plan: Plan, n_prompts: int, n_each: int, n_runs: int) -> dict[str, list[tuple[float, bool, float]]]:
    """(error, covered, width) of each quantity over `n_runs` runs of one world."""
    of = world(plan, 61)
    out: dict[str, list[tuple[float, bool, float]]] = {name: [] for name in QUANTITIES}
    for number in range(n_runs):
        found = estimates(of, n_prompts, n_each, np.random.default_rng([62, number, n_prompts, n_each]))
        for name, interval in found.items():
            covered = interval.low <= of.truth[name] <= interval.high
            out[name].append((interval.estimate - of.truth[name], covered, interval.high - interval.low))
    return out


Values = dict[str, list[tuple[float, bool, float]]]
COLUMNS = (
    *("run", "prompts", "responses an anchor", "runs with onset, transition"),
    *("onset t50: bias", "RMSE", "mean width", "coverage of 95%", "t10: coverage", "t90: coverage"),
    *("transition: bias", "RMSE", "mean width", "coverage of 95%"),
)


def _numbers(values: list[tuple[float, bool, float]]) -> list[str]:
    if not values:
        return [""] * 4
    error, covered, width = np.array(values, dtype=float).T
    return [f"{np.nanmean(error):+.2f}", f"{np.sqrt(np.nanmean(error**2)):.2f}", f"{np.nanmean(width):.2f}", f"{100 * covered.mean():.1f}%"]


def _row(where: Sequence[str], values: Values) -> list[str]:
    onset_cells, transition_cells = _numbers(values["t50"]), _numbers(values["transition"])
    found = f"{len(values['t50'])}, {len(values['transition'])}"
    return [*where, found, *onset_cells, _numbers(values["t10"])[3], _numbers(values["t90"])[3], *transition_cells]


def run(quick: bool) -> Section:
    """Coverage over the worlds and numbers of prompts (issue: at least 93% for onset)."""
    n_runs = 10 if quick else 500
    rows, lowest, shown = [], 1.0, []
    for n_prompts, n_each in SIZES:
        together: Values = {name: [] for name in QUANTITIES}
        for plan in PLANS:
            values = cell(plan, n_prompts, n_each, n_runs)
            rows.append(_row((plan.name, str(n_prompts), str(n_each)), values))
            for name in QUANTITIES:
                together[name] += values[name]
        rows.append(_row(("all of these", str(n_prompts), str(n_each)), together))
        coverage = [float(np.mean([covered for _, covered, _ in together[name]])) for name in ("t50", "transition")]
        lowest = min(lowest, *coverage)
        shown.append(f"{n_prompts} prompts {100 * coverage[0]:.1f}% and {100 * coverage[1]:.1f}%")
    n_all, verdict = n_runs * len(PLANS), "met" if lowest >= 0.93 else "NOT met"
    return Section(
        title="Onset and place of the transition",
        command="python -m tests.benchmarks --only onset",
        columns=COLUMNS,
        rows=rows,
        bar=f"Bar: coverage at least 93% (onset and place of the transition, {n_all} runs each: {'; '.join(shown)}): {verdict}.",
        notes=[
            f"Each world has {POPULATION} prompts that change at times of their own; a run draws its prompts from them, and the "
            "truth is the onset of their mean. Found: the change between the ends is above resolution; the peak is a transition.",
            "t10 and t90 are printed without interval; their coverage is that of the same jackknife.",
        ],
    )
