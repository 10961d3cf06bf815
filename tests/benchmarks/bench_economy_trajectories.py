"""How many judge calls does the course of a label along a whole run take, from one judged set and checkpoint by checkpoint?

Issue 5: at least 8 times fewer at equal error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.synthetic import PlantedRun, draw, exact_change, exact_course, planted_run, staggered_course
from probes.trajectory import course, step_weights
from tests.benchmarks.section import Section

LEAST_FACTOR = 8.0
N_PROMPTS, N_LEVELS = 20, 5
KAPPAS = (1.0, 0.8, 0.6)


@dataclass(frozen=True)
class Plan:
    """A run along which a label moves, and how it is sampled.

    Attributes:
        n_steps: Checkpoints.
        effect, hidden: Of the change between its ends.
        anchors: Checkpoints responses are drawn at.
        n_each: Responses a prompt and anchor.
    """

    n_steps: int
    effect: float
    hidden: float
    anchors: tuple[int, ...]
    n_each: int = 8

    def run(self) -> PlantedRun:
        """Its tables; every prompt changes at a time of its own."""
        rng = np.random.default_rng(91)
        middle = self.n_steps * (0.45 + 0.03 * rng.standard_normal(N_PROMPTS))
        moving = staggered_course(self.n_steps, middle, self.n_steps / 15)
        return planted_run(rng, n_prompts=N_PROMPTS, effects=[self.effect], hidden=self.hidden, n_levels=N_LEVELS, course=moving)


PLANS = (
    Plan(31, 0.6, 0.7, (0, 12, 15, 30)),
    Plan(61, 0.6, 0.7, (0, 25, 30, 60)),
    Plan(61, 1.2, 1.2, (0, 22, 27, 33, 60)),
    Plan(199, 1.2, 1.2, (0, 75, 90, 105, 198)),
)


@dataclass(frozen=True)
class Found:
    """What one plan and judge gave: judged responses, RMSE, calls that checkpoint by checkpoint needs for that RMSE, unknown steps."""

    judged: int
    rmse: float
    one_by_one: float
    unknown: float


def found(plan: Plan, kappa: float, n: int) -> Found:
    """The mean squared error of the course over checkpoints and redraws, and the exact one of fresh responses at every checkpoint.

    A mean over prompts of `k` fresh readings each has the variance `sum_p var_p / (k P^2)` at a checkpoint; `T P k` of them are read.
    """
    run = plan.run()
    level, steps = run.labels[0].astype(float), np.arange(plan.n_steps)
    chance = (N_LEVELS - 1) / 2
    truth = kappa * exact_course(run, level).mean(axis=0) + (1 - kappa) * chance
    second = kappa * exact_course(run, level**2) + (1 - kappa) * float(np.mean(np.arange(N_LEVELS) ** 2))
    spread = second - (kappa * exact_course(run, level) + (1 - kappa) * chance) ** 2
    squares, unknown = [], []
    for k in range(n):
        rng = np.random.default_rng([92, k])
        sample = draw(run, plan.anchors, plan.n_each, rng)
        true = sample.labels_of(run)[0]
        read = np.where(rng.random(true.size) < kappa, true, rng.integers(0, N_LEVELS, true.size)).astype(float)
        estimate = course(step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt), read, steps).estimate
        unknown.append(np.isnan(estimate).mean())
        squares.append(np.nanmean((estimate - truth) ** 2))
    error = float(np.mean(squares))
    judged = len(plan.anchors) * plan.n_each * N_PROMPTS
    return Found(judged, float(np.sqrt(error)), plan.n_steps * float(spread.mean()) / error, float(np.mean(unknown)))


def run(quick: bool) -> Section:
    """Every run with every judge."""
    n = 10 if quick else 200
    rows, factors = [], []
    for plan in PLANS:
        change = exact_change(plan.run(), [0], [plan.n_steps - 1])
        for kappa in KAPPAS:
            got = found(plan, kappa, n)
            factors.append(got.one_by_one / got.judged)
            rows.append(
                [
                    f"{plan.n_steps}",
                    f"{change:.2f}",
                    f"{kappa:g}",
                    f"{len(plan.anchors)}",
                    f"{got.rmse:.3f}",
                    f"{got.judged:,}",
                    f"{got.one_by_one:,.0f}",
                    f"{factors[-1]:.1f}",
                    f"{got.unknown:.1%}",
                ]
            )
    met = "met" if min(factors) >= LEAST_FACTOR else "NOT met"
    return Section(
        title="Judge calls for a label's course along a whole run",
        command="python -m tests.benchmarks --only economy_trajectories",
        columns=(
            *("checkpoints", "D of the ends", "kappa", "anchors", "RMSE of the expected level"),
            *("calls, one judged set", "calls, every checkpoint", "times fewer", "steps unknown"),
        ),
        rows=rows,
        bar=f"Bar: at equal error at least {LEAST_FACTOR:g} times fewer calls than judging every checkpoint: least {min(factors):.1f} "
        f"times: {met}.",
        notes=[
            f"{n} redraws of each planted run, {N_PROMPTS} prompts that change at times of their own, {PLANS[0].n_each} responses a prompt "
            "and anchor, a label of five levels read right with probability kappa. Error: root of the mean square over checkpoints and "
            "redraws against the exact course of the readings. Every checkpoint: calls with which as many fresh readings a prompt at each "
            "of them have that error, from the exact variances (fractions of a response allowed)."
        ],
    )
