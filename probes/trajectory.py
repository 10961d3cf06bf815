"""The course of a judged label along the run from one judged set, and its onset (METHOD 2b, 4).

The expected level at checkpoint t is `sum_i W_ti a_i` with `W_ti = P_t(x_i)/q(x_i)` normalised within prompt, averaged
over prompts: the same prompts at every step, so that the course never moves because the mix of prompts does. A step for which the
responses do not stand (`probes.mixture.covered`: effective sample size, weight checks) is unknown, never extrapolated. A prompt that is
unknown at most of the steps that others know is left out of the whole course, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.mixture import MIN_ESS, Mixture, Weights, covered, sum_by, usable_rows, weights_of
from probes.resampling import Interval, jackknife

__all__ = ["MIN_ESS", "Course", "Onset", "StepWeights", "course", "onset", "step_weights"]

StepWeights = Weights
"""Importance weights of every response at every checkpoint, `k = n_steps` (one set serves every label of the run)."""


@dataclass(frozen=True)
class Course:
    """Expected level along the run.

    Attributes:
        steps: `(n_steps,)`.
        per_prompt: `(n_prompts, n_steps)` expected level, NaN at unknown steps and for prompts that are left out.
        estimate: `(n_steps,)` mean over prompts, the same at every step; NaN where the step is unknown.
        low, high: `(n_steps,)` 95% prompt-jackknife limits.
        ess: `(n_prompts, n_steps)` effective sample sizes.
        n_failed_checks: (prompt, step) pairs that failed the weight check.
        n_prompts_left_out: Prompts that are unknown at most of the steps that others know.
    """

    steps: np.ndarray
    per_prompt: np.ndarray
    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ess: np.ndarray
    n_failed_checks: int
    n_prompts_left_out: int = 0


def step_weights(log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray) -> StepWeights:
    """Weights `P_t(x)/q(x)` of every response at every checkpoint, with their effective sample size and check.

    Args:
        log_likelihood: `(n, n_steps)` nats, NaN where not scored: there each step has its own mixture, of the anchors scored there.
        drawn_at: `(n,)` column at which each response was sampled.
        prompt: `(n,)` codes `0..P-1`.
    """
    if np.isfinite(log_likelihood).all():
        return Mixture.of(log_likelihood, drawn_at, prompt).weights(log_likelihood)
    log_raw = np.full(log_likelihood.shape, np.nan)
    for t in range(log_likelihood.shape[1]):
        rows = usable_rows(log_likelihood, drawn_at, np.array([t])).rows
        if rows.any():
            mixture = Mixture.of(log_likelihood[rows], drawn_at[rows], prompt[rows])
            log_raw[rows, t] = log_likelihood[rows, t] - mixture.log_q
    return weights_of(log_raw, prompt, int(prompt.max()) + 1)


def course(weights: StepWeights, level: np.ndarray, steps: np.ndarray) -> Course:
    """Expected level along the run.

    Args:
        weights: From `step_weights`, rows as `level`.
        level: `(n,)` float levels, NaN where missing (left out here; their rate is reported elsewhere).
        steps: `(n_steps,)`.

    Returns:
        The course with prompt-jackknife limits.
    """
    rows = np.isfinite(level)
    n_prompts = weights.ess.shape[0]
    mass = sum_by(weights.prompt[rows], weights.raw[rows], n_prompts)
    top = sum_by(weights.prompt[rows], weights.raw[rows] * level[rows, None], n_prompts)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_prompt = np.where(mass > 0, top / mass, np.nan)
    kept, known = _kept(weights, np.isfinite(per_prompt))
    per_prompt[~kept] = np.nan
    per_prompt[:, ~known] = np.nan
    estimate, low, high = (np.full(steps.size, np.nan) for _ in range(3))
    for t in np.flatnonzero(known):
        values = per_prompt[kept, t]
        interval = jackknife(float(values.mean()), _leave_one_out_mean(values))
        estimate[t], low[t], high[t] = interval.estimate, interval.low, interval.high
    return Course(steps, per_prompt, estimate, low, high, weights.ess, int(weights.failed.sum()), int((~kept).sum()))


def _kept(weights: StepWeights, has_level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prompts that make the course `(n_prompts,)`, and steps known for them `(n_steps,)`.

    Prompts known at half of the steps that half of the prompts know; then the steps covered for these, at which each of them has a level.
    """
    cells = weights.known & has_level
    steps = 2 * cells.sum(axis=0) >= cells.shape[0]
    kept = 2 * cells[:, steps].sum(axis=1) >= max(int(steps.sum()), 1)
    if not kept.any() or 2 * kept.sum() < kept.size:
        return np.zeros_like(kept), np.zeros_like(steps)
    known = steps & covered(weights.ess[kept], weights.mean[kept], weights.error[kept])
    return kept, known & has_level[kept].all(axis=0)


def _leave_one_out_mean(values: np.ndarray) -> np.ndarray:
    if values.size < 2:
        return np.full(values.size, np.nan)
    return np.asarray((values.sum() - values) / (values.size - 1))


@dataclass(frozen=True)
class Onset:
    """When a label moved: steps at which its expected level has made 10, 50 and 90% of its way, each with interval; NaN: none.

    `places (n_prompts,)` is t50 without each prompt, for paired comparisons.
    """

    t10: Interval
    t50: Interval
    t90: Interval
    shift: Interval
    places: np.ndarray


def onset(found: Course, near: float | None = None) -> Onset | None:
    """First crossing half-way between the means over the first and last tenth of the run (METHOD 4).

    Args:
        found: A course.
        near: For several crossings the one nearest this step (the peak of D) counts; None: the first.

    Returns:
        The onset, or None when the change between the two ends is below resolution (its interval contains 0) or an end is unknown.
    """
    n = found.steps.size
    edge = max(1, n // 10)
    per_prompt = found.per_prompt[:, np.isfinite(found.estimate)]
    steps = found.steps[np.isfinite(found.estimate)]
    if per_prompt.shape[1] < 2 * edge + 1 or not np.isfinite(found.estimate[[0, -1]]).all():
        return None
    whole, curves = _mean_of_known(per_prompt)
    shift = jackknife(float(_shift(whole, edge)), _shift(curves, edge))
    if not (shift.low > 0 or shift.high < 0):
        return None
    middle = _crossing(whole, steps, edge, 0.5, near)
    places = np.array([_crossing(c, steps, edge, 0.5, middle) for c in curves])

    def crossing(part: float) -> Interval:
        at = _crossing(whole, steps, edge, part, middle)
        return jackknife(at, np.array([_crossing(c, steps, edge, part, at) for c in curves]))

    return Onset(crossing(0.1), jackknife(middle, places), crossing(0.9), shift, places)


def _mean_of_known(per_prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the known prompts `(n_steps,)`, and without each prompt `(n_prompts, n_steps)`: NaN where no other is known."""
    known = np.isfinite(per_prompt)
    values, count = np.where(known, per_prompt, 0.0), known.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return values.sum(axis=0) / count, (values.sum(axis=0) - values) / np.where(count > known, count - known, np.nan)


def _shift(values: np.ndarray, edge: int) -> np.ndarray:
    return np.asarray(values[..., -edge:].mean(axis=-1) - values[..., :edge].mean(axis=-1))


def _crossing(values: np.ndarray, steps: np.ndarray, edge: int, part: float, near: float | None) -> float:
    """Step at which the curve crosses `part` of its way in the direction of the whole change, by linear interpolation."""
    start, end = values[:edge].mean(), values[-edge:].mean()
    way = (values - start) / (end - start) - part
    up = np.flatnonzero((way[:-1] < 0) & (way[1:] >= 0))
    if up.size == 0:
        return float("nan")
    at = steps[up] + (steps[up + 1] - steps[up]) * (-way[up]) / (way[up + 1] - way[up])
    return float(at[0] if near is None else at[np.argmin(np.abs(at - near))])
