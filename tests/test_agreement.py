"""Agreement of two readers: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from probes.agreement import agreement
from probes.errors import ShapeError


def levels(*values: int) -> np.ndarray:
    """Readings as an array."""
    return np.array(values, dtype=np.int64)


def test_krippendorffs_own_example() -> None:
    """Two readers of ten units with nominal-like binary data: alpha .095 (Krippendorff 2011, section A)."""
    meg = levels(0, 1, 0, 0, 0, 0, 0, 0, 1, 0)
    owen = levels(1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
    found = agreement(meg, owen, 2)
    assert found.krippendorff_alpha == pytest.approx(0.095, abs=5e-4)
    assert found.exact == 0.6


def test_weighted_kappa_by_hand() -> None:
    """Quadratic weights: a disagreement by two levels costs four times one by one level; 1 - observed/expected."""
    first, second = levels(0, 0, 1, 1, 2, 2), levels(0, 1, 1, 1, 2, 0)
    observed = 1 + 4
    expected = sum((a - b) ** 2 for a in first for b in second) / 6
    assert agreement(first, second, 3).weighted_kappa == pytest.approx(1 - observed / expected)


def test_equal_readings_agree_fully_and_independent_ones_by_chance(rng: np.random.Generator) -> None:
    """The same reading twice gives 1 everywhere, two unrelated ones 0 within noise."""
    first, second = rng.integers(0, 5, 4000), rng.integers(0, 5, 4000)
    same = agreement(first, first, 5)
    assert (same.exact, same.weighted_kappa, same.krippendorff_alpha) == (1.0, 1.0, 1.0)
    other = agreement(first, second, 5)
    assert other.weighted_kappa == pytest.approx(0, abs=0.06)
    assert other.krippendorff_alpha == pytest.approx(0, abs=0.06)


def test_missing_readings_are_left_out_in_pairs() -> None:
    """A response that one reader could not read enters neither count nor agreement."""
    whole = agreement(levels(0, 1, 2, 2), levels(0, 1, 2, 1), 3)
    assert agreement(levels(0, 1, 2, 2, -1, 1), levels(0, 1, 2, 1, 2, -1), 3) == whole
    assert whole.n == 4


def test_nothing_is_said_where_nothing_can_be_known() -> None:
    """No common reading, or a single level throughout: no kappa and no alpha rather than a number."""
    assert agreement(levels(-1, 0), levels(0, -1), 2).exact is None
    one = agreement(levels(1, 1, 1), levels(1, 1, 1), 3)
    assert (one.exact, one.weighted_kappa, one.krippendorff_alpha) == (1.0, None, None)


def test_readings_that_do_not_fit_are_refused() -> None:
    """Different lengths and levels beyond the scale are mistakes."""
    with pytest.raises(ShapeError, match="same responses"):
        agreement(levels(0), levels(0, 1), 2)
    with pytest.raises(ShapeError, match="below 2"):
        agreement(levels(0, 2), levels(0, 1), 2)
