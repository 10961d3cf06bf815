from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from probes.dissimilarity import Contrast, side_contrast
from probes.explained_share import explained, length_bins
from probes.permutation import conditional_permutation
from probes.synthetic import contrast_of, draw, planted_run


def _problem(
    rng: np.random.Generator, likelihoods: bool, effect: float, n_prompts: int = 8, n_each: int = 6
) -> tuple[Contrast, np.ndarray]:
    """A small planted contrast and its true label."""
    run = planted_run(rng, n_prompts=n_prompts, effects=[effect], n_outcomes=40, hidden=0.5)
    sample = draw(run, [0, 1], n_each, rng)
    return contrast_of(sample, [0], [1], likelihoods=likelihoods), sample.labels_of(run)[0]


def _plug_in_gain(contrast: Contrast, base: Sequence[np.ndarray], label: np.ndarray) -> float:
    """Rise of the fitted sum of squares per prompt when the label joins prompts and base, by weighted least squares."""

    def fitted(labels: Sequence[np.ndarray]) -> float:
        columns = [np.asarray(code == level, dtype=float) for code in [contrast.prompt, *labels] for level in np.unique(code)]
        root = np.sqrt(contrast.weight)
        x, y = np.stack(columns, axis=1) * root[:, None], contrast.s * root
        return float(np.sum((x @ np.linalg.lstsq(x, y, rcond=1e-10)[0]) ** 2))

    return (fitted([*base, label]) - fitted(base)) / contrast.n_prompts


@pytest.mark.parametrize("likelihoods", [True, False])
def test_statistic_is_the_gain_of_the_regression(likelihoods: bool, rng: np.random.Generator) -> None:
    """z, mean and deviation give back the plug-in gain in D[O] of each candidate over prompts and base, fitted by brute force."""
    contrast, label = _problem(rng, likelihoods, 1.0)
    n = contrast.s.size
    base = [rng.integers(0, 3, n), rng.integers(-1, 2, n)]
    candidates = [label, rng.integers(0, 4, n), np.where(label > 2, 1, 0)]
    test = conditional_permutation(contrast, base, candidates, rng, 50)
    for j, candidate in enumerate(candidates):
        observed = test.null_mean[j] + test.z[j] * test.null_deviation[j]
        assert observed == pytest.approx(_plug_in_gain(contrast, base, candidate), abs=1e-12)


@pytest.mark.parametrize("likelihoods", [True, False])
def test_permuted_statistics_are_gains_of_labels_shuffled_within_prompts(likelihoods: bool, rng: np.random.Generator) -> None:
    """Mean and deviation under permutation agree with 300 shuffles made here and fitted by brute force, within 4 standard errors."""
    contrast, label = _problem(rng, likelihoods, 1.0, n_prompts=6, n_each=4)
    base = [rng.integers(0, 3, contrast.s.size)]
    test = conditional_permutation(contrast, base, [label], rng, 4000)
    gains = []
    for _ in range(300):
        shuffled = label.copy()
        for p in range(6):
            rows = np.flatnonzero(contrast.prompt == p)
            shuffled[rows] = label[rng.permutation(rows)]
        gains.append(_plug_in_gain(contrast, base, shuffled))
    assert test.null_mean[0] == pytest.approx(np.mean(gains), abs=4 * float(np.std(gains)) / np.sqrt(300))
    assert test.null_deviation[0] == pytest.approx(np.std(gains), rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("likelihoods", [True, False])
def test_candidates_from_noise_are_accepted_at_the_level_and_real_ones_are_found(likelihoods: bool) -> None:
    """Over 150 small null problems with three candidates, p <= .05 in at most .05 + 2 SE, p is uniform; 95% of 20 real ones pass."""
    rejected, alone = [], []
    for seed in range(150):
        rng = np.random.default_rng([1, seed])
        contrast, _ = _problem(rng, likelihoods, 0.8)
        base = [rng.integers(0, 3, contrast.s.size)]
        noise = [rng.integers(0, k, contrast.s.size) for k in (2, 3, 5)]
        test = conditional_permutation(contrast, base, noise, rng, 99)
        rejected.append(test.p_value.min() <= 0.05)
        alone.append(test.marginal_p_value[1])
    assert np.mean(rejected) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(rejected) > 0
    assert stats.kstest(alone, "uniform").pvalue > 0.01

    found = []
    for seed in range(20):
        rng = np.random.default_rng([2, seed])
        contrast, label = _problem(rng, likelihoods, 2.0)
        test = conditional_permutation(contrast, [rng.integers(0, 3, contrast.s.size)], [label, *noise[:2]], rng, 99)
        found.append(test.p_value[0] <= 0.05)
    assert np.mean(found) >= 0.95


def test_null_holds_with_unequal_weights_and_unequal_sides() -> None:
    """Labels that say nothing beside a base that says something: p <= .1 in at most .1 + 2 SE of 200 problems of uneven sides."""
    rejected = []
    for seed in range(200):
        rng = np.random.default_rng([3, seed])
        prompt = np.repeat(np.arange(6), 12)
        after = rng.random(72) < 0.25
        after[np.arange(6) * 12], after[np.arange(6) * 12 + 1] = False, True
        contrast = side_contrast(after, prompt)
        base = [np.where(rng.random(72) < 0.8, after, ~after).astype(int)]
        rejected.append(conditional_permutation(contrast, base, [rng.integers(0, 3, 72)], rng, 99).p_value[0] <= 0.1)
    assert 0.02 <= np.mean(rejected) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 200)


def test_family_wise_p_values_are_never_below_those_of_candidates_alone(rng: np.random.Generator) -> None:
    """MaxT p >= marginal p, in the order of z, and the strongest is compared with the maximum over all."""
    contrast, label = _problem(rng, True, 0.6)
    candidates = [label, *(rng.integers(0, 4, contrast.s.size) for _ in range(6))]
    test = conditional_permutation(contrast, [], candidates, np.random.default_rng(0), 400)
    assert (test.p_value >= test.marginal_p_value).all()
    ranked = np.argsort(-test.z)
    assert (np.diff(test.p_value[ranked]) >= 0).all()
    assert ((test.p_value >= 1 / 401) & (test.p_value <= 1)).all()
    assert test.n_permutations == 400


def test_more_rivals_never_make_a_candidate_look_better(rng: np.random.Generator) -> None:
    """With the same permutations, a candidate's maxT p-value among seven is at least its p-value among two."""
    contrast, label = _problem(rng, True, 0.3)
    candidates = [label, *(rng.integers(0, 4, contrast.s.size) for _ in range(6))]
    few, many = (conditional_permutation(contrast, [], candidates[:k], np.random.default_rng(0), 300) for k in (2, 7))
    assert few.marginal_p_value == pytest.approx(many.marginal_p_value[:2])
    assert (many.p_value[:2] >= few.p_value).all()


def test_order_of_candidates_and_of_responses_decides_nothing(rng: np.random.Generator) -> None:
    """Reversing the candidates reverses the p-values; naming levels otherwise leaves them."""
    contrast, label = _problem(rng, True, 0.4)
    candidates = [label, rng.integers(0, 4, contrast.s.size), rng.integers(0, 2, contrast.s.size)]
    one = conditional_permutation(contrast, [], candidates, np.random.default_rng(0), 300)
    back = conditional_permutation(contrast, [], candidates[::-1], np.random.default_rng(0), 300)
    named = conditional_permutation(contrast, [], [7 - 2 * c for c in candidates], np.random.default_rng(0), 300)
    assert one.p_value == pytest.approx(back.p_value[::-1])
    assert one.p_value == pytest.approx(named.p_value)
    assert one.z == pytest.approx(named.z)


def test_candidates_that_say_nothing_new_get_p_of_one(rng: np.random.Generator) -> None:
    """One level, a level per prompt, the base itself and the base renamed: p = 1, beside a real candidate that is found."""
    contrast, label = _problem(rng, True, 2.0)
    base = [length_bins(rng.integers(5, 300, contrast.s.size)), rng.integers(0, 3, contrast.s.size)]
    candidates = [np.zeros_like(label), contrast.prompt, base[0], 5 - base[1], label]
    test = conditional_permutation(contrast, base, candidates, rng, 200)
    assert test.p_value[:4].tolist() == [1.0] * 4
    assert test.marginal_p_value[:4].tolist() == [1.0] * 4
    assert test.p_value[4] < 0.05


def test_a_hundred_levels_and_levels_of_one_response_are_no_trouble(rng: np.random.Generator) -> None:
    """A label that names every response has no permutation that differs: p = 1; one with 125 levels gives an ordinary p-value."""
    contrast, _ = _problem(rng, True, 0.5, n_prompts=8, n_each=9)
    n = contrast.s.size
    many = np.arange(n)
    many[:20] = 0
    test = conditional_permutation(contrast, [], [np.arange(n), many], rng, 30)
    assert test.p_value[0] == 1.0
    assert 1 / 31 <= test.p_value[1] <= 1


def test_ties_count_against_the_candidate() -> None:
    """Where half of all permutations reach the observed gain exactly, p is about one half, whatever rounding does."""
    contrast = side_contrast(np.tile([False, True], 1), np.zeros(2, dtype=int))
    test = conditional_permutation(contrast, [], [np.array([0, 1])], np.random.default_rng(0), 200)
    assert test.p_value[0] == 1.0
    contrast = side_contrast(np.tile([False, False, True, True], 2), np.repeat([0, 1], 4))
    test = conditional_permutation(contrast, [], [np.array([0, 0, 1, 1, 0, 0, 1, 1])], np.random.default_rng(0), 3000)
    # 6 ways to choose two of four in each prompt; the gain is full when both prompts are split alike: 2 of 36
    assert test.p_value[0] == pytest.approx(2 / 36, abs=4 * np.sqrt(2 / 36 / 3000))


def test_huge_and_tiny_s_give_the_same_test(rng: np.random.Generator) -> None:
    """The test has no scale: s a million times smaller gives the same p-values; s = 0 everywhere gives p = 1."""
    contrast, label = _problem(rng, True, 0.8)
    candidates = [label, rng.integers(0, 3, contrast.s.size)]

    def of(s: np.ndarray) -> np.ndarray:
        scaled = Contrast(s, contrast.weight, contrast.prompt, True, contrast.group, contrast.index)
        return conditional_permutation(scaled, [rng.integers(0, 1, s.size)], candidates, np.random.default_rng(0), 200).p_value

    assert of(contrast.s) == pytest.approx(of(contrast.s * 1e-6))
    assert of(np.zeros_like(contrast.s)).tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_length_bins_let_nothing_through_that_only_sees_length() -> None:
    """In 40 worlds where only length changed, a noisy judge of length always passes alone, beside length bins in 5% + 2 SE at most."""
    alone: list[bool] = []
    beside: list[bool] = []
    for seed in range(40):
        rng = np.random.default_rng([4, seed])
        prompt = np.repeat(np.arange(20), 20)
        after = np.tile([False, True], 200)
        words = np.exp(rng.normal(4.0 + 0.9 * after, 0.6)).astype(int) + 1
        label = np.digitize(np.log(words) + 0.2 * rng.standard_normal(400), [3.7, 4.3, 4.9])
        contrast = side_contrast(after, prompt)
        bases: list[tuple[list[np.ndarray], list[bool]]] = [([], alone), ([length_bins(words)], beside)]
        for base, outcome in bases:
            gain = explained(contrast, [*base, label]).change - explained(contrast, base).change
            test = conditional_permutation(contrast, base, [label], rng, 99)
            outcome.append(test.p_value[0] <= 0.05 and gain >= 0.02)
    assert np.mean(alone) == 1.0
    assert np.mean(beside) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)
