"""The course of a judged label along the run from one judged set, and its onset (METHOD 2b, 4).

The expected level at checkpoint t is `sum_i W_ti a_i` with `W_ti = P_t(x_i)/q(x_i)` normalised within prompt, averaged
over prompts. A prompt at a step where the effective sample size is below `MIN_ESS`, or whose unnormalised weights do not
average 1 within their error, is unknown there, never extrapolated; a step is unknown when fewer than half of the
prompts are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.dissimilarity import anchor_log_density
from probes.resampling import Interval, jackknife

MIN_ESS = 4.0
"""Floor of the effective sample size per prompt and step."""
WEIGHT_CHECK_ERRORS = 4.0
"""Unnormalised weights must average 1 within this many standard errors (plus .05)."""


@dataclass(frozen=True)
class Course:
    """Expected level along the run.

    Attributes:
        steps: `(n_steps,)`.
        per_prompt: `(n_prompts, n_steps)` expected level, NaN where unknown.
        estimate: `(n_steps,)` mean over the known prompts, NaN where the step is unknown.
        low, high: `(n_steps,)` 95% prompt-jackknife limits.
        ess: `(n_prompts, n_steps)` effective sample sizes.
        n_failed_checks: (prompt, step) pairs that failed the weight check.
    """

    steps: np.ndarray
    per_prompt: np.ndarray
    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ess: np.ndarray
    n_failed_checks: int


@dataclass(frozen=True)
class StepWeights:
    """Importance weights of every response at every checkpoint (one set serves every label of the run).

    Attributes:
        raw: `(n, n_steps)` unnormalised `P_t(x)/q(x)`.
        prompt: `(n,)` codes `0..P-1`.
        ess: `(n_prompts, n_steps)`.
        failed: `(n_prompts, n_steps)` True where the weight check fails.
    """

    raw: np.ndarray
    prompt: np.ndarray
    ess: np.ndarray
    failed: np.ndarray


def step_weights(log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray) -> StepWeights:
    """Weights `P_t(x)/q(x)` with their effective sample size and check; `log_likelihood (n, n_steps)` nats without NaN."""
    raw = np.exp(log_likelihood - anchor_log_density(log_likelihood, drawn_at, prompt)[:, None])
    n_prompts = int(prompt.max()) + 1
    n = np.bincount(prompt, minlength=n_prompts)[:, None]
    total, square = _sum_by(prompt, raw, n_prompts), _sum_by(prompt, raw**2, n_prompts)
    mean = total / n
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = total**2 / square
        error = np.sqrt(np.maximum(square / n - mean**2, 0) / np.maximum(n - 1, 1))
    failed = np.abs(mean - 1) > WEIGHT_CHECK_ERRORS * error + 0.05
    return StepWeights(raw, prompt, ess, failed)


def _sum_by(prompt: np.ndarray, values: np.ndarray, n_prompts: int) -> np.ndarray:
    indicator = np.zeros((n_prompts, prompt.size))
    indicator[prompt, np.arange(prompt.size)] = 1.0
    return np.asarray(indicator @ values)


def course(weights: StepWeights, level: np.ndarray, steps: np.ndarray) -> Course:
    """Expected level along the run.

    Args:
        weights: From `step_weights`, rows as `level`.
        level: `(n,)` float levels, NaN where missing (left out here; their rate is reported elsewhere).
        steps: `(n_steps,)`.

    Returns:
        The course with prompt-jackknife limits.
    """
    known = np.isfinite(level)
    n_prompts = weights.ess.shape[0]
    mass = _sum_by(weights.prompt[known], weights.raw[known], n_prompts)
    top = _sum_by(weights.prompt[known], weights.raw[known] * level[known, None], n_prompts)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_prompt = np.where((mass > 0) & (weights.ess >= MIN_ESS) & ~weights.failed, top / mass, np.nan)
    estimate, low, high = (np.full(steps.size, np.nan) for _ in range(3))
    for t in range(steps.size):
        column = per_prompt[:, t]
        finite = np.isfinite(column)
        if 2 * finite.sum() >= column.size and finite.any():
            interval = jackknife(float(column[finite].mean()), _leave_one_out_mean(column[finite]))
            estimate[t], low[t], high[t] = interval.estimate, interval.low, interval.high
    return Course(steps, per_prompt, estimate, low, high, weights.ess, int(weights.failed.sum()))


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
