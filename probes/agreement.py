"""How far two readers of the same responses agree on an ordinal scale (METHOD 4, judge error).

Missing readings (negative levels) are left out in pairs and counted by whoever calls. Sources: Cohen (1968) for the weighted kappa,
Krippendorff (2011), "Computing Krippendorff's alpha-reliability", for alpha with its ordinal metric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import ShapeError


@dataclass(frozen=True)
class Agreement:
    """Agreement of two readers.

    Attributes:
        n: Responses that both read.
        exact: Part of them given the same level, in [0, 1]; None when n is 0.
        weighted_kappa: `1 - sum w_ij O_ij / sum w_ij E_ij` with `w_ij = (i-j)^2`, at most 1; None when chance alone would agree
            everywhere (a single level was used), where it is 0/0.
        krippendorff_alpha: `1 - D_o/D_e` with the ordinal metric; None where no disagreement is expected.
    """

    n: int
    exact: float | None
    weighted_kappa: float | None
    krippendorff_alpha: float | None


def agreement(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], n_levels: int) -> Agreement:
    """Agreement of two readings of the same responses.

    Args:
        first: `(n,)` levels 0 to n_levels - 1, negative where this reader gave none.
        second: The other reader's, likewise.
        n_levels: Levels of the scale.

    Raises:
        ShapeError: The two differ in length, or hold a level beyond the scale.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1:
        raise ShapeError(f"expected two readings of the same responses, found shapes {first.shape} and {second.shape}")
    if max(first.max(initial=-1), second.max(initial=-1)) >= n_levels:
        raise ShapeError(f"expected levels below {n_levels}, found {max(first.max(initial=-1), second.max(initial=-1))}")
    both = (first >= 0) & (second >= 0)
    a, b = first[both], second[both]
    if not a.size:
        return Agreement(0, None, None, None)
    table = np.zeros((n_levels, n_levels))
    np.add.at(table, (a, b), 1.0)
    level = np.arange(n_levels)
    square = (level[:, None] - level[None, :]) ** 2.0
    kappa = _one_minus(float((square * table).sum()), float((square * np.outer(table.sum(1), table.sum(0))).sum() / a.size))
    coincidence = table + table.T
    count = coincidence.sum(1)
    metric = _ordinal_metric(count)
    expected = (np.outer(count, count) - np.diag(count)) / (count.sum() - 1)
    alpha = _one_minus(float((metric * coincidence).sum()), float((metric * expected).sum()))
    return Agreement(int(a.size), float(np.mean(a == b)), kappa, alpha)


def _ordinal_metric(count: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`(sum of counts from level c to level k, less half of both ends)^2`: levels hardly used lie close together."""
    middle = np.cumsum(count) - count / 2
    return np.asarray((middle[:, None] - middle[None, :]) ** 2)


def _one_minus(observed: float, expected: float) -> float | None:
    return None if expected <= 0 else 1.0 - observed / expected
