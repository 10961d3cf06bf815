from __future__ import annotations

import numpy as np
import pytest

from probes.dissimilarity import likelihood_contrast, total_change
from probes.errors import SampleError
from probes.synthetic import PlantedRun, PlantedSample, draw, exact_curve, logistic_course, planted_run, staggered_course
from probes.transition import TransitionCurve, find_transitions, transition_curve, windows_to_scan

STEPS = 10 * np.arange(31)
ANCHORS = [0, 10, 20, 30]


def _run(rng: np.random.Generator, course: np.ndarray, effect: float = 1.2, n_prompts: int = 12) -> PlantedRun:
    return planted_run(rng, n_prompts=n_prompts, effects=[effect], n_outcomes=80, course=course)


def _curve(sample: PlantedSample, window: int, steps: np.ndarray = STEPS) -> TransitionCurve:
    return transition_curve(sample.log_likelihood, sample.drawn_at, sample.prompt, steps, window)


# ---- the curve


@pytest.mark.parametrize("window", [1, 3])
def test_every_split_is_the_contrast_of_its_two_windows(window: int, rng: np.random.Generator) -> None:
    """D, its limits, effective size and weight check of each split equal those of the contrast of L checkpoints on either side."""
    sample = draw(_run(rng, logistic_course(31, 15, 2)), ANCHORS, 5, rng)
    found = _curve(sample, window)
    low, high = found.limits()
    assert found.curve.size == 31 - 2 * window + 1
    for k in range(0, found.curve.size, 4):
        at = int(found.first_right[k])
        contrast = likelihood_contrast(
            sample.log_likelihood, sample.drawn_at, sample.prompt, np.arange(at - window, at), np.arange(at, at + window)
        )
        whole = total_change(contrast)
        assert (found.curve[k], low[k], high[k]) == pytest.approx((whole.estimate, whole.low, whole.high), abs=1e-12)
        assert found.ess[:, k] == pytest.approx(contrast.ess)
        assert found.mean_weight[:, k] == pytest.approx(contrast.mean_weight)
        assert found.mean_weight_error[:, k] == pytest.approx(contrast.mean_weight_error, abs=1e-12)


def test_a_split_lies_midway_between_the_checkpoints_it_separates() -> None:
    """Unevenly spaced checkpoints: the split step is the middle of the last left and the first right checkpoint."""
    found = transition_curve(np.full((4, 5), -1.0), np.zeros(4, dtype=int), np.array([0, 0, 1, 1]), np.array([0, 1, 5, 10, 40]), 2)
    assert found.first_right.tolist() == [2, 3]
    assert found.split_steps.tolist() == [3.0, 7.5]


def test_four_anchors_draw_the_curve_of_the_whole_run(rng: np.random.Generator) -> None:
    """Over 30 redraws the curve from 4 anchors centres on the exact one everywhere (3 SE plus .003); one redraw is within .06 of it."""
    run = _run(rng, logistic_course(31, 15, 2))
    exact = exact_curve(run, 4).mean(axis=0)
    found = np.array([_curve(draw(run, ANCHORS, 12, rng), 4).curve for _ in range(30)])
    assert (np.abs(found.mean(axis=0) - exact) < 3 * found.std(axis=0) / np.sqrt(30) + 0.003).all()
    assert np.abs(found[0] - exact).max() < 0.06
    assert exact.max() > 0.03


def test_thousands_of_nats_leave_the_curve_as_it_is(rng: np.random.Generator) -> None:
    """Only differences between checkpoints count; responses that only one end can give count as fully separated."""
    sample = draw(_run(rng, logistic_course(31, 15, 2)), ANCHORS, 5, rng)
    far = transition_curve(sample.log_likelihood - 20_000, sample.drawn_at, sample.prompt, STEPS, 2)
    assert far.curve == pytest.approx(_curve(sample, 2).curve, abs=1e-9)
    log_likelihood = np.full((12, 8), -20.0)
    log_likelihood[:6, 4:], log_likelihood[6:, :4] = -9000.0, -8000.0
    apart = transition_curve(log_likelihood, np.repeat([0, 7], 6), np.tile(np.arange(6), 2), np.arange(8), 2)
    assert apart.curve.tolist() == pytest.approx([0, 0.5 / 1.5, 1, 0.5 / 1.5, 0])


def test_windows_that_do_not_fit_are_refused() -> None:
    """A window needs twice its number of checkpoints; the message says how many there are."""
    with pytest.raises(SampleError, match="at least 6 checkpoints, found 5"):
        transition_curve(np.zeros((2, 5)), np.zeros(2, dtype=int), np.zeros(2, dtype=int), np.arange(5), 3)


@pytest.mark.parametrize(
    ("n_steps", "expected"),
    [(1, []), (2, [1]), (4, [1]), (7, [1]), (8, [1, 2]), (16, [1, 2, 4]), (61, [1, 2, 4, 8]), (200, [1, 2, 4, 8, 16, 32])],
)
def test_windows_double_up_to_a_quarter_of_the_run(n_steps: int, expected: list[int]) -> None:
    """1, 2, 4, 8, ... <= T/4, and 1 wherever two checkpoints exist (METHOD 4)."""
    assert windows_to_scan(n_steps) == expected


# ---- transitions


def _drawn_by_hand(per_prompt: np.ndarray, window: int = 2) -> TransitionCurve:
    """A curve with given values `(n_prompts, n_splits)`."""
    n = per_prompt.shape[1]
    ones = np.ones_like(per_prompt)
    return TransitionCurve(window, np.arange(window, window + n), 10.0 * np.arange(n), per_prompt, 9 * ones, ones, ones)


def test_a_peak_must_be_twice_the_median(rng: np.random.Generator) -> None:
    """All prompts agree on a peak 1.6 times the median: none; 2.4 times: one. The reason gives the number."""
    for height, there in ((1.6, False), (2.4, True)):
        curve = np.full(20, 0.1) + 0.001 * np.sin(np.arange(20))
        curve[8] = 0.1 * height
        (found,) = find_transitions(_drawn_by_hand(np.outer(rng.uniform(0.95, 1.05, 8), curve)))
        assert found.found is there
        assert found.ratio.estimate == pytest.approx(height, rel=0.03)
        assert there or "only 1.6" in found.reason


def test_a_peak_that_rests_on_one_prompt_is_none(rng: np.random.Generator) -> None:
    """One of eight prompts makes the peak, four times the median in the mean: without that prompt it is gone, so its lower limit fails."""
    curve = 0.1 * rng.uniform(0.9, 1.1, (8, 20))
    curve[3, 8] = 2.5
    (found,) = find_transitions(_drawn_by_hand(curve))
    assert found.ratio.estimate > 2
    assert found.ratio.low < 1.3
    assert not found.found
    assert "lower limit" in found.reason


def test_peaks_within_two_windows_or_without_a_valley_between_are_one(rng: np.random.Generator) -> None:
    """Of two equal peaks the second counts from 2L checkpoints on, and only where the curve falls to half between them."""
    for distance, valley, n_found in ((3, 0.01, 1), (4, 0.01, 2), (8, 0.01, 2), (8, 0.8, 1)):
        curve = np.full(40, 0.05)
        curve[10 : 10 + distance + 1] = valley
        curve[10], curve[10 + distance] = 1.0, 0.9
        found = find_transitions(_drawn_by_hand(np.outer(rng.uniform(0.9, 1.1, 8), curve)))
        assert [t.first_right for t in found] == [12, 12 + distance][:n_found]


def test_a_planted_transition_is_found_at_its_place(rng: np.random.Generator) -> None:
    """Over 20 redraws: always found, at most 1.5 checkpoints off the exact peak; the interval covers 18 times or more."""
    errors, covered = [], []
    for _ in range(20):
        midpoints = rng.normal(17, 1, 12)
        run = _run(rng, staggered_course(31, midpoints, 1.5))
        truth = 10 * (np.argmax(exact_curve(run, 4).mean(axis=0)) + 4) - 5
        first = find_transitions(_curve(draw(run, ANCHORS, 12, rng), 4))[0]
        assert first.found, first.reason
        assert first.reason == ""
        assert first.ratio.low > 1.3
        errors.append(first.step.estimate - truth)
        covered.append(first.step.low - 5 <= truth <= first.step.high + 5)
    assert np.abs(errors).max() <= 15
    assert np.sum(covered) >= 18


@pytest.mark.parametrize("course", [np.linspace(0.3, 0.7, 31), np.linspace(0.45, 0.55, 31)])
def test_a_steady_course_has_no_transition(course: np.ndarray, rng: np.random.Generator) -> None:
    """A mixture that moves evenly around the middle changes the same at every step: no transition, and the reason names the numbers."""
    for _ in range(5):
        found = find_transitions(_curve(draw(_run(rng, course), ANCHORS, 12, rng), 4))
        assert len(found) == 1
        assert not found[0].found
        assert "times its median" in found[0].reason or "lower limit" in found[0].reason


def test_a_run_in_which_nothing_moves_has_no_transition(rng: np.random.Generator) -> None:
    """All checkpoints the same: D is 0 everywhere; not found, with a reason and without a warning."""
    found = find_transitions(_curve(draw(_run(rng, np.full(31, 0.5)), ANCHORS, 5, rng), 2))
    assert len(found) == 1
    assert not found[0].found
    assert found[0].reason


def test_a_single_jump_between_equal_checkpoints_is_a_transition(rng: np.random.Generator) -> None:
    """Nothing moves but once: the median of the curve is 0, the peak stands out all the same, at its place."""
    run = _run(rng, (np.arange(31) >= 12).astype(float))
    for window in (1, 4):
        (first,) = find_transitions(_curve(draw(run, [0, 30], 12, rng), window))
        assert first.found, first.reason
        assert first.first_right == 12
        assert first.step.estimate == pytest.approx(115.0, abs=1.0)


def test_two_transitions_are_found_and_told_apart(rng: np.random.Generator) -> None:
    """A run that changes at step 80 and again at 230 has two transitions, the higher first, and nothing else."""
    first, second = logistic_course(31, 8, 0.8), logistic_course(31, 23, 0.8)
    run = _run(rng, 0.5 * first + 0.5 * second, effect=2.0, n_prompts=16)
    found = find_transitions(_curve(draw(run, [0, 10, 15, 20, 30], 16, rng), 3))
    assert [t.found for t in found] == [True, True]
    assert sorted(t.step.estimate for t in found) == pytest.approx([80, 230], abs=12)
    assert found[0].ratio.estimate >= found[1].ratio.estimate
    assert found[0].places.shape == (16,)


def test_change_that_only_follows_the_learning_rate_is_no_transition(rng: np.random.Generator) -> None:
    """Weights that move with the learning rate peak where it peaks: a transition by D alone, none after dividing by its square."""
    rate = np.interp(np.arange(31), [0, 10, 30], [0.15, 1.0, 0.15])
    course = 0.2 + 0.6 * np.cumsum(rate) / rate.sum()
    curve = _curve(draw(_run(rng, course), ANCHORS, 30, rng), 2)
    at_split = np.interp(curve.split_steps, STEPS, rate)
    assert find_transitions(curve)[0].found
    (divided,) = find_transitions(curve, at_split)
    assert not divided.found
    assert "after dividing by the squared learning rate" in divided.reason


def test_a_real_transition_survives_division_by_the_learning_rate(rng: np.random.Generator) -> None:
    """A jump in the middle of a decay is still one; unknown, zero or missing rates are no reason against it."""
    curve = _curve(draw(_run(rng, logistic_course(31, 15, 1.0)), ANCHORS, 20, rng), 2)
    rate = np.linspace(1.0, 0.3, curve.curve.size)
    partly = rate.copy()
    partly[:5] = np.nan
    for learning_rate in (rate, partly, np.zeros_like(rate), np.full_like(rate, np.nan), np.full_like(rate, 2e-5)):
        first = find_transitions(curve, learning_rate)[0]
        assert first.found, first.reason
        assert first.step.estimate == pytest.approx(150, abs=10)


def test_splits_that_are_unknown_are_not_taken_for_peaks(rng: np.random.Generator) -> None:
    """A split without weight in some prompt is NaN on the curve; the peak is searched among the others."""
    curve = _curve(draw(_run(rng, logistic_course(31, 15, 1.0)), ANCHORS, 20, rng), 2)
    per_prompt = curve.per_prompt.copy()
    per_prompt[3, :2] = np.nan
    unknown = TransitionCurve(2, curve.first_right, curve.split_steps, per_prompt, curve.ess, curve.mean_weight, curve.mean_weight_error)
    assert find_transitions(unknown)[0].found
    assert find_transitions(unknown)[0].first_right == find_transitions(curve)[0].first_right


def test_one_prompt_cannot_show_a_transition(rng: np.random.Generator) -> None:
    """A single prompt gives no lower limit: not found, for that reason."""
    run = _run(rng, logistic_course(31, 15, 1.0), n_prompts=1)
    first = find_transitions(_curve(draw(run, ANCHORS, 20, rng), 2))[0]
    assert not first.found
    assert "lower limit" in first.reason
