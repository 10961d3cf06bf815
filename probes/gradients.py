"""The gradient norm along training: where it peaks (METHOD 5). Missing values (NaN) stay missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

SMOOTHING = 0.03
"""Width of the running median and mean, as a part of the run."""
PROMINENCE_ERRORS = 3.0
"""A peak must rise this many robust deviations of the step-to-step noise above its surroundings."""


@dataclass(frozen=True)
class GradientPeak:
    """Most prominent interior peak of the smoothed gradient norm.

    Attributes:
        step: Step of the peak.
        prominence: Height above its surroundings (topographic), in units of the norm.
        noise: Robust deviation of the raw norm around the smoothed curve, after smoothing.
        n_missing: Steps without a finite norm (left out).
    """

    step: float
    prominence: float
    noise: float
    n_missing: int


def grad_norm_peak(steps: np.ndarray, grad_norm: np.ndarray) -> GradientPeak | None:
    """Find the peak of the gradient norm.

    A falling start (the usual decay from step 0) or a rising end is no peak: it must come down on both sides. A single
    spike (an epoch boundary, a bad batch) is removed by the running median before smoothing.

    Args:
        steps: `(n,)` ascending optimizer steps.
        grad_norm: `(n,)` pre-clip norms, NaN where not logged.

    Returns:
        The peak, or None when no interior peak rises above the noise.
    """
    finite = np.isfinite(grad_norm)
    x, y = steps[finite].astype(np.float64), grad_norm[finite].astype(np.float64)
    if x.size < 5:
        return None
    width = max(3, round(SMOOTHING * x.size) | 1)
    smooth = _running_mean(_running_median(y, width), width)
    noise = float(1.4826 * np.median(np.abs(y - smooth)) / np.sqrt(width))
    at, shape = find_peaks(smooth, prominence=max(PROMINENCE_ERRORS * noise, 1e-12))
    if at.size == 0:
        return None
    best = int(np.argmax(shape["prominences"]))
    return GradientPeak(float(x[at[best]]), float(shape["prominences"][best]), noise, int((~finite).sum()))


def _padded_windows(y: np.ndarray, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(np.pad(y, width // 2, mode="edge"), width)


def _running_median(y: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(np.median(_padded_windows(y, width), axis=1))


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(_padded_windows(y, width).mean(axis=1))
