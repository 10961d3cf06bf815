from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probes.resampling import jackknife, jackknife_share, within_prompt_groups


def _leave_one_out_means(values: np.ndarray) -> np.ndarray:
    return np.asarray((values.sum() - values) / (values.size - 1))


def test_jackknife_of_a_mean_is_the_textbook_t_interval(rng: np.random.Generator) -> None:
    """For a mean the jackknife is Student's interval: s/sqrt(n) with t of n-1 degrees of freedom."""
    values = rng.gamma(2.0, size=9)
    found = jackknife(float(values.mean()), _leave_one_out_means(values), confidence=0.9)
    expected = stats.t.interval(0.9, 8, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(values), abs=1e-12)
    assert found.n_groups == 9


def test_jackknife_covers_at_its_level(rng: np.random.Generator) -> None:
    """Over 1000 samples of 8 prompts the 95% interval of a mean covers in 93.5 to 96.5% (3 standard errors: 2%)."""
    covered = []
    for _ in range(1000):
        values = rng.standard_normal(8)
        interval = jackknife(float(values.mean()), _leave_one_out_means(values))
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.021)


def test_undefined_groups_are_counted_out_and_too_few_give_no_limits() -> None:
    """NaN among the leave-one-out values shrinks the number of groups; below two, or without an estimate, there are no limits."""
    whole = jackknife(2.0, np.array([1.0, 2.0, 3.0, np.nan]))
    assert whole == jackknife(2.0, np.array([1.0, 2.0, 3.0]))
    assert whole.n_groups == 3
    for interval in (jackknife(2.0, np.array([1.0, np.nan])), jackknife(2.0, np.empty(0)), jackknife(np.nan, np.arange(5.0))):
        assert np.isnan([interval.low, interval.high, interval.standard_error]).all()
    assert jackknife(2.0, np.array([1.0, np.nan])).estimate == 2.0


@pytest.mark.parametrize("value", [0.0, 0.25, 0.3, 1.0])
def test_equal_groups_give_no_limits(value: float) -> None:
    """Groups that do not differ at all say nothing about how much they could: the estimate stands without limits, on both scales."""
    for interval in (jackknife(value, np.full(12, value)), jackknife_share(value, np.full(12, value))):
        assert interval.estimate == value
        assert interval.n_groups == 12
        assert np.isnan([interval.low, interval.high, interval.standard_error]).all()


def test_scaled_interval_is_the_interval_of_the_scaled_statistic(rng: np.random.Generator) -> None:
    """Scaling before or after the jackknife is the same."""
    values = rng.random(7)
    before = jackknife(4 * float(values.mean()), 4 * _leave_one_out_means(values))
    after = jackknife(float(values.mean()), _leave_one_out_means(values)).scaled(4)
    assert (before.estimate, before.low, before.high, before.standard_error) == pytest.approx(
        (after.estimate, after.low, after.high, after.standard_error)
    )


@pytest.mark.parametrize("estimate", [-0.2, 0.0, 0.1, 0.3])
def test_share_far_from_one_has_the_plain_interval(estimate: float, rng: np.random.Generator) -> None:
    """Where a share is far from 1 and well known, the scale log(1 - share) changes nothing that is printed."""
    loo = estimate + 0.002 * rng.standard_normal(20)
    plain, share = jackknife(estimate, loo), jackknife_share(estimate, loo)
    assert (share.low, share.high) == pytest.approx((plain.low, plain.high), abs=5e-4)
    assert share.estimate == estimate


def test_share_near_one_never_reaches_one_and_leans_to_the_safe_side(rng: np.random.Generator) -> None:
    """Near 1 the upper limit stays below 1 and the lower limit is further away than the upper."""
    loo = 0.95 + 0.04 * (rng.random(12) - 0.5)
    share = jackknife_share(0.95, loo)
    assert jackknife(0.95, loo).high > 1 > share.high
    assert 0.95 - share.low > share.high - 0.95 > 0


@pytest.mark.parametrize(("estimate", "extreme"), [(1.05, 0.9), (0.95, 1.02), (0.95, 0.91)])
def test_share_that_one_prompt_carries_past_one_is_not_clipped(estimate: float, extreme: float) -> None:
    """An estimate from 1 on, or a prompt that moves the residual by more than half of itself, keeps the plain scale, uncut at 1."""
    loo = np.array([0.94, 0.96, 0.955, extreme])
    assert jackknife_share(estimate, loo) == jackknife(estimate, loo)
    assert jackknife_share(estimate, loo).high > 1


def test_share_without_limits_stays_without_limits() -> None:
    """Fewer than two finite groups: no limits on either scale, and no warning."""
    assert np.isnan(jackknife_share(0.5, np.array([0.4, np.nan])).low)
    assert np.isnan(jackknife_share(float("nan"), np.full(4, np.nan)).low)


def test_groups_within_prompts_take_the_same_part_of_every_cell(rng: np.random.Generator) -> None:
    """Every (prompt, side) cell is dealt out evenly: the sizes of its parts differ by one at most, and so do the groups'."""
    prompt, side = np.repeat([0, 1, 2], [30, 21, 8]), np.tile([0, 1], 30)[:59]
    group = within_prompt_groups(prompt, side, 5, rng)
    for p in range(3):
        for s in range(2):
            parts = np.bincount(group[(prompt == p) & (side == s)], minlength=5)
            assert np.ptp(parts) <= 1
    assert np.ptp(np.bincount(group, minlength=5)) <= 1


def test_groups_within_prompts_are_random_but_repeatable() -> None:
    """The same generator deals the same groups, another one deals others."""
    prompt, side = np.repeat(np.arange(4), 10), np.tile([0, 1], 20)
    first, again, other = (within_prompt_groups(prompt, side, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
