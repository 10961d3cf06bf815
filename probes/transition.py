"""The transition curve D(t*) along a run, and whether it has a transition (METHOD 2, 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.errors import SampleError
from probes.mixture import (
    Mixture,
    Weights,
    contrast_floor,
    covered,
    normalised,
    sum_by,
    usable_rows,
    weights_of,
    without_ratio_bias,
)
from probes.resampling import Interval, jackknife

PEAK_OVER_MEDIAN = 2.0
"""A transition's peak is at least this many times the median of the curve (METHOD 4)."""
PEAK_OVER_MEDIAN_LOW = 1.3
"""... with the lower limit of that ratio above this."""


_ROUNDING = 1e-10
"""D that rounding alone can show, and more."""


@dataclass(frozen=True)
class TransitionCurve:
    """Linear dissimilarity between the windows left and right of every split with complete windows.

    Attributes:
        window: L, checkpoints per side.
        first_right: `(n_splits,)` column of the first right checkpoint of each split.
        split_steps: `(n_splits,)` step of each split: midway between the two checkpoints it separates.
        per_prompt: `(n_prompts, n_splits)` D per prompt, in [0, 1]; NaN at a split that is unknown.
        ess: `(n_prompts, n_splits)` effective sample size.
        mean_weight, mean_weight_error: `(n_prompts, n_splits)` weight check: 1 within its error when the anchors cover m.
        n_unscored: Responses left out at some split because a log-probability is missing there.
    """

    window: int
    first_right: np.ndarray
    split_steps: np.ndarray
    per_prompt: np.ndarray
    ess: np.ndarray
    mean_weight: np.ndarray
    mean_weight_error: np.ndarray
    n_unscored: int = 0

    @property
    def curve(self) -> np.ndarray:
        """`(n_splits,)` D(t*), mean over prompts."""
        return np.asarray(self.per_prompt.mean(axis=0))

    def leave_one_out(self) -> np.ndarray:
        """`(n_prompts, n_splits)` the curve without each prompt."""
        p = self.per_prompt.shape[0]
        return np.asarray((self.per_prompt.sum(axis=0) - self.per_prompt) / max(p - 1, 1))

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper 95% limits `(n_splits,)` of D at every split."""
        loo, curve = self.leave_one_out(), self.curve
        intervals = [jackknife(float(curve[k]), loo[:, k]) for k in range(curve.size)]
        return np.array([i.low for i in intervals]), np.array([i.high for i in intervals])


def transition_curve(
    log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray, steps: np.ndarray, window: int
) -> TransitionCurve:
    """D(t*) for windows of `window` checkpoints, from responses drawn at any anchors.

    A split whose windows the responses do not stand for (`probes.mixture.covered`) is unknown: NaN for every prompt, so that the curve
    is a mean over the same prompts everywhere.

    Args:
        log_likelihood: `(n, n_steps)` nats; NaN where not scored (see `probes.mixture.usable_rows`).
        drawn_at: `(n,)` column at which each response was sampled.
        prompt: `(n,)` codes `0..P-1`.
        steps: `(n_steps,)` ascending step numbers.
        window: L >= 1 with `2L <= n_steps`.

    Returns:
        The curve over the `n_steps - 2L + 1` splits with complete windows.

    Raises:
        SampleError: Fewer than `2 * window` checkpoints.
    """
    n_steps, n_prompts = steps.size, int(prompt.max()) + 1
    if 2 * window > n_steps:
        raise SampleError(f"window {window}: expected at least {2 * window} checkpoints, found {n_steps}")
    first_right = np.arange(window, n_steps - window + 1)
    n_unscored = 0
    if np.isfinite(log_likelihood).all():
        mixture = Mixture.of(log_likelihood, drawn_at, prompt)
        s, log_m = _both_windows(log_likelihood, window)
        parts = [_at_splits(s, log_m - mixture.log_q[:, None], prompt, n_prompts, mixture.strata(log_likelihood, drawn_at))]
    else:
        parts = []
        for at in first_right:
            columns = np.arange(at - window, at + window)
            usable = usable_rows(log_likelihood, drawn_at, columns)
            n_unscored = max(n_unscored, usable.n_unscored)
            parts.append(_at_one_split(log_likelihood, drawn_at, prompt, n_prompts, columns, usable.rows))
    d = np.concatenate([values for values, _ in parts], axis=1)
    ess, mean, error = (np.concatenate([getattr(w, name) for _, w in parts], axis=1) for name in ("ess", "mean", "error"))
    n = np.concatenate([np.repeat(np.bincount(w.prompt, minlength=n_prompts)[:, None], w.ess.shape[1], axis=1) for _, w in parts], axis=1)
    count = np.zeros((n_prompts, n_steps))
    np.add.at(count, (prompt, drawn_at), 1.0)
    inside = np.lib.stride_tricks.sliding_window_view(count, 2 * window, axis=1).sum(axis=2)
    d[:, ~covered(ess, mean, error, contrast_floor(n, inside))] = np.nan
    return TransitionCurve(window, first_right, (steps[first_right - 1] + steps[first_right]) / 2, d, ess, mean, error, n_unscored)


def _both_windows(log_likelihood: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair s and log m `(n, n_splits)` of the windows left and right of every split."""
    # relative to each response's most likely checkpoint nothing overflows, and what underflows has no weight in either window
    top = log_likelihood.max(axis=1, keepdims=True)
    means = np.lib.stride_tricks.sliding_window_view(np.exp(log_likelihood - top), window, axis=1).mean(axis=2)
    left, right = means[:, : means.shape[1] - window], means[:, window:]
    total = left + right
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (left - right) / total, 0.0), np.log(total / 2) + top


def _at_splits(s: np.ndarray, log_raw: np.ndarray, prompt: np.ndarray, n_prompts: int, strata: np.ndarray) -> tuple[np.ndarray, Weights]:
    present, code = np.unique(prompt, return_inverse=True)
    d = np.full((n_prompts, s.shape[1]), np.nan)
    d[present] = sum_by(code, without_ratio_bias(normalised(log_raw, code), code, strata) * s**2, present.size)
    return d, weights_of(log_raw, prompt, n_prompts)


def _at_one_split(
    log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray, n_prompts: int, columns: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, Weights]:
    """The same where not everything is scored: a split's own mixture, of the anchors that are scored there."""
    if not rows.any():
        nothing = np.full((n_prompts, 1), np.nan)
        return nothing.copy(), Weights(np.zeros((prompt.size, 1)), prompt, np.zeros((n_prompts, 1)), nothing, nothing)
    mixture = Mixture.of(log_likelihood[rows], drawn_at[rows], prompt[rows])
    s, log_m = _both_windows(log_likelihood[np.ix_(rows, columns)], columns.size // 2)
    strata = mixture.strata(log_likelihood[rows], drawn_at[rows])
    return _at_splits(s, log_m - mixture.log_q[:, None], prompt[rows], n_prompts, strata)


def windows_to_scan(n_steps: int) -> list[int]:
    """Windows 1, 2, 4, 8, ... up to a quarter of the checkpoints (METHOD 4)."""
    out, w = [], 1
    while w <= max(1, n_steps // 4) and 2 * w <= n_steps:
        out.append(w)
        w *= 2
    return out


@dataclass(frozen=True)
class Transition:
    """A peak of the transition curve, and whether it stands out.

    Attributes:
        window: L of the curve it was found on.
        first_right: Column of the first right checkpoint at the peak.
        step: Split step of the peak with its prompt-jackknife interval.
        places: `(n_prompts,)` its place without each prompt, for paired comparisons.
        ratio: Peak over the median of the curve, with interval.
        found: Ratio at least `PEAK_OVER_MEDIAN` with lower limit above `PEAK_OVER_MEDIAN_LOW`, also per squared learning rate.
        reason: Why not, in plain English; empty when found.
    """

    window: int
    first_right: int
    step: Interval
    places: np.ndarray
    ratio: Interval
    found: bool
    reason: str


def find_transitions(curve: TransitionCurve, learning_rate: np.ndarray | None = None) -> list[Transition]:
    """The peaks of the curve, highest first, each tested against the median (METHOD 4).

    Two peaks are told apart when their windows do not overlap and the curve falls to half of the lower one between them.

    Args:
        curve: From `transition_curve`.
        learning_rate: `(n_splits,)` learning rate around each split, or None when unknown. Where it is given and positive the
            test must also pass on D/lr^2, since warm-up and decay alone move D.

    Returns:
        The highest peak, whether it is a transition (`found`) or not, then every further peak that is one.
    """
    values = curve.curve
    highest = int(np.argmax(np.where(np.isfinite(values), values, -1.0)))
    first = _tested(curve, highest, learning_rate)
    if not first.found:
        return [first]
    kept = [highest]
    out = [first]
    for peak in sorted(_local_maxima(values), key=lambda k: -values[k]):
        if all(_apart(values, peak, other, 2 * curve.window) for other in kept):
            tested = _tested(curve, peak, learning_rate)
            if tested.found:
                kept.append(peak)
                out.append(tested)
    return out


def _local_maxima(values: np.ndarray) -> list[int]:
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    return np.flatnonzero((padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:])).tolist()


def _apart(values: np.ndarray, a: int, b: int, distance: int) -> bool:
    low, high = min(a, b), max(a, b)
    return high - low >= distance and np.nanmin(values[low : high + 1]) <= min(values[a], values[b]) / 2


def _tested(curve: TransitionCurve, peak: int, learning_rate: np.ndarray | None) -> Transition:
    values, loo = curve.curve, curve.leave_one_out()
    ratio = _peak_ratio(values, loo, peak)
    reason = _why_not(ratio, "")
    if not reason and values.size > 2 and peak in (0, values.size - 1):
        reason = "the curve is highest at its end: it does not come down on both sides"  # as where behaviour only drifts
    if not reason and not np.isfinite(values[max(peak - 1, 0) : peak + 2]).all():
        reason = "the curve is unknown next to its highest known value: too little was sampled there"
    if not reason and learning_rate is not None:
        known = np.isfinite(learning_rate) & (learning_rate > 0)
        # rates below a tenth of the largest (the foot of warm-up, the tail of decay) would divide by almost nothing
        known &= learning_rate >= 0.1 * np.nanmax(np.where(known, learning_rate, np.nan)) if known.any() else known
        if known[peak] and known.sum() >= 3:
            scaled, scaled_loo = values[known] / learning_rate[known] ** 2, loo[:, known] / learning_rate[known] ** 2
            at = int(np.flatnonzero(np.flatnonzero(known) == peak)[0])
            reason = _why_not(_peak_ratio(scaled, scaled_loo, at), " after dividing by the squared learning rate")
    step, places = _peak_interval(curve, values, loo, peak)
    return Transition(curve.window, int(curve.first_right[peak]), step, places, ratio, not reason, reason)


def _peak_ratio(values: np.ndarray, loo: np.ndarray, peak: int) -> Interval:
    """Peak over median of the known splits, its interval on the log scale, as where little else moves the median is near 0."""
    known = np.isfinite(values)
    if not known[peak]:
        return jackknife(float("nan"), loo[:, peak])
    # a median of 0 (equal checkpoints) counts as what rounding could make of it
    ratio = float(max(values[peak], _ROUNDING) / max(np.median(values[known]), _ROUNDING))
    parts = np.maximum(loo[:, peak], _ROUNDING) / np.maximum(np.median(loo[:, known], axis=1), _ROUNDING)
    if parts.size >= 2 and np.ptp(parts) <= _ROUNDING * ratio:  # prompts that agree entirely, as where D is 1 in all of them
        return Interval(ratio, ratio, ratio, 0.0, parts.size)
    log = jackknife(float(np.log(ratio)), np.log(parts))
    return Interval(ratio, float(np.exp(log.low)), float(np.exp(log.high)), ratio * log.standard_error, log.n_groups)


def _why_not(ratio: Interval, where: str) -> str:
    if not np.isfinite(ratio.estimate):
        return "the curve is unknown at every split: no responses were drawn near enough"
    if not np.isfinite(ratio.low) and ratio.estimate >= PEAK_OVER_MEDIAN:
        return f"peak over median is {ratio.estimate:.2f}{where}, but one prompt gives it no lower limit"
    if not ratio.estimate >= PEAK_OVER_MEDIAN:
        return f"the peak of the curve is only {ratio.estimate:.2f} times its median{where} (at least {PEAK_OVER_MEDIAN:g} needed)"
    if not ratio.low > PEAK_OVER_MEDIAN_LOW:
        return f"peak over median has the lower limit {ratio.low:.2f}{where} (above {PEAK_OVER_MEDIAN_LOW:g} needed)"
    return ""


def _peak_interval(curve: TransitionCurve, values: np.ndarray, loo: np.ndarray, peak: int) -> tuple[Interval, np.ndarray]:
    """Place of the peak (vertex of the parabola through it) with interval, and its place without each prompt.

    Each leave-one-out curve is refined around its own maximum within the windows of the peak.
    """
    from_, to = max(0, peak - 2 * curve.window), peak + 2 * curve.window + 1
    places = np.array([_vertex(curve.split_steps, row, from_ + int(np.argmax(np.nan_to_num(row[from_:to], nan=-1.0)))) for row in loo])
    return jackknife(_vertex(curve.split_steps, values, peak), places), places


def _vertex(steps: np.ndarray, values: np.ndarray, k: int) -> float:
    if k == 0 or k == values.size - 1:
        return float(steps[k])
    a, b, c = values[k - 1], values[k], values[k + 1]
    bend = a - 2 * b + c
    shift = 0.0 if bend == 0 or not np.isfinite(bend) else float(np.clip(0.5 * (a - c) / bend, -0.5, 0.5))
    spacing = steps[k + 1] - steps[k] if shift > 0 else steps[k] - steps[k - 1]
    return float(steps[k] + shift * spacing)
