"""The gradient norm along training: where it peaks (METHOD 5). Missing values (NaN) stay missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

SMOOTHING = 0.05
"""Width of the running median and mean, as a part of the run; at least 5 steps."""
N_REDRAWS = 200
"""Redraws of the noise for the interval of the place."""
PROMINENCE_ERRORS = 6.0
"""A peak must rise this many robust deviations of the step-to-step noise above its surroundings.

By noise alone the highest of twenty smoothing windows passes 6 in about one run of twenty and 3 in most (60 to 2000 steps, simulated).
"""


@dataclass(frozen=True)
class GradientPeak:
    """Most prominent interior peak of the smoothed gradient norm.

    Attributes:
        step: Step of the peak.
        low, high: 95% interval of the place, from redrawing the step-to-step noise around the smoothed curve.
        prominence: Height above its surroundings (topographic), in units of the norm.
        noise: Robust deviation of the raw norm around the smoothed curve, after smoothing.
        n_missing: Steps without a finite norm (left out).
    """

    step: float
    low: float
    high: float
    prominence: float
    noise: float
    n_missing: int


def grad_norm_peak(steps: np.ndarray, grad_norm: np.ndarray, rng: np.random.Generator) -> GradientPeak | None:
    """Find the peak of the gradient norm.

    A falling start (the usual decay from step 0) or a rising end is no peak: it must come down on both sides. A single
    spike (an epoch boundary, a bad batch) is removed by the running median before smoothing.

    Args:
        steps: `(n,)` ascending optimizer steps.
        grad_norm: `(n,)` pre-clip norms, > 0, NaN where not logged.
        rng: Source of the redraws.

    Returns:
        The peak, or None when no interior peak rises above the noise.
    """
    finite = np.isfinite(grad_norm)
    x, y = steps[finite].astype(np.float64), grad_norm[finite].astype(np.float64)
    if x.size < 5:
        return None
    width = max(5, round(SMOOTHING * x.size) | 1)
    smooth = _smoothed(y, width)
    noise = float(1.4826 * np.median(np.abs(y - smooth)) / np.sqrt(width))
    at, shape = find_peaks(smooth, prominence=max(PROMINENCE_ERRORS * noise, 1e-12))
    if at.size == 0:
        return None
    best = int(np.argmax(shape["prominences"]))
    low, high = _place_limits(x, y, smooth, width, rng)
    return GradientPeak(float(x[at[best]]), low, high, float(shape["prominences"][best]), noise, int((~finite).sum()))


def _place_limits(x: np.ndarray, y: np.ndarray, smooth: np.ndarray, width: int, rng: np.random.Generator) -> tuple[float, float]:
    """2.5% and 97.5% quantiles of the highest interior point when the relative noise is drawn anew."""
    floor = max(float(np.abs(y).max()) * 1e-9, 1e-300)
    log_smooth, log_y = np.log(np.maximum(smooth, floor)), np.log(np.maximum(y, floor))
    noise = log_y - log_smooth
    places = []
    for _ in range(N_REDRAWS):
        redrawn = _smoothed(np.exp(log_smooth + rng.choice(noise, noise.size)), width)
        at, shape = find_peaks(redrawn, prominence=0)
        if at.size:
            places.append(x[at[int(np.argmax(shape["prominences"]))]])
    low, high = np.quantile(places, [0.025, 0.975]) if places else (x[0], x[-1])
    return float(low), float(high)


def _smoothed(y: np.ndarray, width: int) -> np.ndarray:
    return _running_mean(_running_median(y, width), width)


def _padded_windows(y: np.ndarray, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(np.pad(y, width // 2, mode="edge"), width)


def _running_median(y: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(np.median(_padded_windows(y, width), axis=1))


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(_padded_windows(y, width).mean(axis=1))
