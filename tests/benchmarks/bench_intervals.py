"""Do the intervals cover? Shares and D over many planted runs whose exact values are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.dissimilarity import total_change
from probes.explained_share import explained
from probes.resampling import Interval
from probes.shapley import shapley
from probes.synthetic import PlantedRun, contrast_of, draw, exact_change, planted_run
from tests.benchmarks.section import Section

POPULATION = 600
"""Prompts in each world; the prompts of a run are drawn from them, and the truth is that of all of them."""
WORLDS = ((0.7, 0.35, 0.0), (0.45, 0.45, 0.2), (0.3, 0.15, 0.0), (1.0, 0.5, 0.3))
"""Log-odds per standardised level of three parameters, one tuple per world."""
QUANTITIES = ("single", "joint", "unique", "Shapley", "D")


@dataclass(frozen=True)
class World:
    """A population of prompts with the exact D[O] of each quantity and the exact D."""

    run: PlantedRun
    change: dict[str, float]
    total: float


def worlds(seed: int) -> list[World]:
    """The worlds of the benchmark, with parameters correlated .3."""
    out = []
    for k, effects in enumerate(WORLDS):
        rng = np.random.default_rng([seed, k])
        run = planted_run(rng, n_prompts=POPULATION, effects=effects, correlation=0.3, n_outcomes=300)
        value = {
            subset: exact_change(run, [0], [1], run.labels[list(subset)]) if subset else 0.0
            for subset in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
        }
        # the orders of entry written out: first, second after either, last
        shapley_first = (
            value[(0,)] / 3 + (value[(0, 1)] - value[(1,)] + value[(0, 2)] - value[(2,)]) / 6 + (value[(0, 1, 2)] - value[(1, 2)]) / 3
        )
        change = {"single": value[(0,)], "joint": value[(0, 1, 2)], "unique": value[(0, 1, 2)] - value[(1, 2)], "Shapley": shapley_first}
        out.append(World(run, change, exact_change(run, [0], [1])))
    return out


def estimates(world: World, n_prompts: int, n_each: int, likelihoods: bool, rng: np.random.Generator) -> dict[str, Interval]:
    """Every quantity with its interval from one run drawn from the world."""
    run = world.run.at_prompts(rng.choice(POPULATION, n_prompts, replace=False))
    sample = draw(run, [0, 1], n_each, rng)
    contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
    labels = list(sample.labels_of(run))
    joint = explained(contrast, labels)
    out = {
        "single": explained(contrast, labels[:1]).share_interval,
        "joint": joint.share_interval,
        "unique": joint.minus(explained(contrast, labels[1:])).share_interval,
        "Shapley": shapley(contrast, labels)[0].share_interval,
    }
    if likelihoods:
        out["D"] = total_change(contrast)
    return out


def cell(
    world_list: Sequence[World], n_prompts: int, n_each: int, likelihoods: bool, n_runs: int, seed: int
) -> dict[str, tuple[float, float, float, float]]:
    """(bias, RMSE, coverage, mean width) of each quantity over `n_runs` runs."""
    rows: dict[str, list[tuple[float, bool, float]]] = {}
    for r in range(n_runs):
        world = world_list[r % len(world_list)]
        rng = np.random.default_rng([seed, r, n_prompts, n_each])
        for name, interval in estimates(world, n_prompts, n_each, likelihoods, rng).items():
            truth = world.total if name == "D" else world.change[name] / (world.total if likelihoods else 1.0)
            rows.setdefault(name, []).append(
                (interval.estimate - truth, interval.low <= truth <= interval.high, interval.high - interval.low)
            )
    out = {}
    for name, values in rows.items():
        error, covered, width = np.array(values, dtype=float).T
        out[name] = (float(error.mean()), float(np.sqrt(np.mean(error**2))), float(covered.mean()), float(width.mean()))
    return out


def table(cells: Sequence[tuple[int, int]], n_runs: int, seed: int) -> tuple[list[list[str]], list[tuple[int, str, float, float]]]:
    """Rows of the table and (prompts, quantity, bias, coverage) for the bar."""
    world_list = worlds(seed)
    rows, checks = [], []
    for likelihoods in (True, False):
        for n_prompts, n_each in cells:
            for name, (bias, rmse, coverage, width) in cell(world_list, n_prompts, n_each, likelihoods, n_runs, seed).items():
                known = "yes" if likelihoods else "no"
                rows.append(
                    [known, str(n_prompts), str(n_each), name, f"{bias:+.4f}", f"{rmse:.3f}", f"{100 * coverage:.1f}%", f"{width:.3f}"]
                )
                checks.append((n_prompts, name, bias, coverage))
    return rows, checks


COLUMNS = ("likelihoods", "prompts", "responses a side", "quantity", "bias", "RMSE", "coverage of 95%", "mean width")


def run(quick: bool) -> Section:
    """Coverage over the grid of prompts (issue: 92.5-98% from 12 prompts up, at least 90% at 6 to 10)."""
    n_runs = 40 if quick else 2000
    rows, checks = table([(6, 20), (8, 10), (10, 20), (12, 10), (20, 20), (40, 10)], n_runs, seed=1)
    many = [c for p, _, _, c in checks if p >= 12]
    few = [c for p, _, _, c in checks if p < 12]
    met = all(0.925 <= c <= 0.98 for c in many) and all(c >= 0.9 for c in few)
    bar = (
        f"Bar: 92.5-98% from 12 prompts up (found {100 * min(many):.1f}-{100 * max(many):.1f}%), at least 90% at 6-10 "
        f"(found {100 * min(few):.1f}% at least): {'met' if met else 'NOT met'}."
    )
    return Section(
        title="Intervals cover",
        command="python -m tests.benchmarks --only intervals",
        columns=COLUMNS,
        rows=rows,
        bar=bar,
        notes=[f"{n_runs} planted runs a cell over {len(WORLDS)} worlds of {POPULATION} prompts; the truth is that of the population."],
    )
