"""Were responses drawn by the law they are scored by? The posterior of their anchor against the true anchor (METHOD 2b).

Given a response x to a prompt, it was drawn at anchor a with probability `r_a = n_a P_a(x) / sum_b n_b P_b(x)`. So over responses the log
posterior of the true anchor has the mean `sum_a r_a log r_a` and a known variance, whatever the responses are: nothing heavy-tailed, no
effective sample size. A sampler of another temperature draws as if the posterior were `r^beta` with beta other than 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from probes.mixture import Mixture

CALIBRATION_ERRORS = 3.0
"""Standard errors by which the slope must differ from 1 to be off ..."""
CALIBRATION_SLACK = 0.1
"""... and the difference that does not matter: rounding, another dtype."""


@dataclass(frozen=True)
class AnchorCalibration:
    """How the anchors' posterior agrees with the true anchors.

    Attributes:
        slope: beta, 1 when responses follow the law they are scored by: `1 + sum(log r_true - E log r) / sum Var(log r)`; above 1 the
            sampler was sharper (colder), below 1 flatter. NaN when the anchors do not differ.
        error: Its standard error when the law is right.
        surplus: `(n_anchors,)` responses drawn at each anchor minus those its posterior claims, in standard errors.
        anchors: `(n_anchors,)` columns.
        n: Responses.
    """

    slope: float
    error: float
    surplus: np.ndarray
    anchors: np.ndarray
    n: int

    @property
    def off(self) -> bool:
        """Whether the responses were not drawn by the law they are scored by (False where that cannot be told)."""
        return bool(abs(self.slope - 1) > max(CALIBRATION_ERRORS * self.error, CALIBRATION_SLACK))


def anchor_calibration(log_likelihood: np.ndarray, drawn_at: np.ndarray, prompt: np.ndarray) -> AnchorCalibration:
    """Calibration of the anchor posterior of responses scored under all anchors.

    Args:
        log_likelihood: `(n, n_steps)` nats, no NaN in the anchors' columns.
        drawn_at: `(n,)` column at which each was sampled.
        prompt: `(n,)` codes `0..P-1`.
    """
    mixture = Mixture.of(log_likelihood, drawn_at, prompt)
    log_r = log_likelihood[:, mixture.anchors] + mixture.log_share[prompt] - mixture.log_q[:, None]
    r = np.exp(log_r)
    true = np.searchsorted(mixture.anchors, drawn_at)
    expected = xlogy(r, r).sum(axis=1)
    with np.errstate(invalid="ignore"):
        variance = np.where(r > 0, r * log_r**2, 0.0).sum(axis=1) - expected**2
    found = log_r[np.arange(true.size), true]
    information = float(variance.sum())
    drawn = np.bincount(true, minlength=mixture.anchors.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        surplus = (drawn - r.sum(axis=0)) / np.sqrt((r * (1 - r)).sum(axis=0))
    if not information > 1e-9 * true.size:
        return AnchorCalibration(float("nan"), float("nan"), surplus, mixture.anchors, true.size)
    slope = 1 + float((found - expected).sum()) / information
    return AnchorCalibration(slope, float(information**-0.5), surplus, mixture.anchors, true.size)
