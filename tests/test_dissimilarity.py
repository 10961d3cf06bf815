from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import gammaln, rel_entr

from probes.dissimilarity import (
    Contrast,
    dissimilarity,
    leave_one_out_means,
    likelihood_contrast,
    mixture_log_probability,
    pointwise,
    side_contrast,
    squared_response_noise,
    total_change,
)
from probes.errors import SampleError, ShapeError
from probes.mixture import Mixture
from probes.synthetic import PlantedRun, contrast_of, draw, exact_change, logistic_course, planted_run

Kind = Literal["linear", "jensen_shannon", "total_variation"]
KINDS: tuple[Kind, ...] = ("linear", "jensen_shannon", "total_variation")

weights = arrays(np.float64, (2, 7), elements=st.one_of(st.just(0.0), st.floats(1e-6, 1.0)))
pairs = weights.filter(lambda x: bool((x.sum(axis=1) > 0).all())).map(lambda x: x / x.sum(axis=1, keepdims=True))
"""Two distributions over seven outcomes, zeros included."""


# ---- exact dissimilarities of finite distributions


@settings(max_examples=40)
@given(pairs)
def test_all_lie_between_zero_and_one_and_linear_between_tv_squared_and_tv(pq: np.ndarray) -> None:
    """Every dissimilarity is in [0, 1] and TV^2 <= D <= TV (METHOD 2)."""
    linear, js, tv = (float(dissimilarity(pq[0], pq[1], kind)) for kind in KINDS)
    for value in (linear, js, tv):
        assert -1e-12 <= value <= 1 + 1e-12
    assert tv**2 - 1e-12 <= linear <= tv + 1e-12


@settings(max_examples=40)
@given(pairs)
def test_linear_is_the_mean_of_s_squared_and_half_the_squared_difference_over_the_sum(pq: np.ndarray) -> None:
    """D = E_m[s^2] = 1/2 sum (P_l - P_r)^2 / (P_l + P_r), s = (P_l - P_r)/(P_l + P_r)."""
    p, q = pq[:, pq.sum(axis=0) > 0]
    found = float(dissimilarity(*pq))
    assert found == pytest.approx(np.sum((p - q) ** 2 / (p + q)) / 2, abs=1e-12)
    assert found == pytest.approx(np.sum((p + q) / 2 * ((p - q) / (p + q)) ** 2), abs=1e-12)


@settings(max_examples=40)
@given(pairs)
def test_jensen_shannon_generator_is_the_textbook_divergence(pq: np.ndarray) -> None:
    """g(u) = log2(2u) gives (KL(p|m) + KL(q|m))/2 in bits; g(u) = |2u-1| gives half the absolute difference."""
    p, q = pq
    m = (p + q) / 2
    kl = (rel_entr(p, m).sum() + rel_entr(q, m).sum()) / 2 / np.log(2)
    assert float(dissimilarity(p, q, "jensen_shannon")) == pytest.approx(kl, abs=1e-12)
    assert float(dissimilarity(p, q, "total_variation")) == pytest.approx(np.abs(p - q).sum() / 2, abs=1e-12)


@settings(max_examples=40)
@given(pairs, st.sampled_from(KINDS))
def test_sides_may_be_exchanged_and_equal_sides_do_not_differ(pq: np.ndarray, kind: Kind) -> None:
    """D(p, q) = D(q, p) and D(p, p) = 0."""
    p, q = pq
    assert float(dissimilarity(p, q, kind)) == pytest.approx(float(dissimilarity(q, p, kind)), abs=1e-12)
    assert float(dissimilarity(p, p, kind)) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_sides_without_common_outcomes_differ_by_one(kind: Kind) -> None:
    """Disjoint supports have the largest dissimilarity, exactly 1."""
    assert float(dissimilarity(np.array([0.2, 0.8, 0, 0]), np.array([0, 0, 0.5, 0.5]), kind)) == 1.0


@settings(max_examples=40)
@given(pairs, arrays(np.int64, 7, elements=st.integers(0, 2)), st.sampled_from(KINDS))
def test_a_label_never_shows_more_change_than_there_is(pq: np.ndarray, label: np.ndarray, kind: Kind) -> None:
    """Data processing: D[O] <= D for any label O of the outcomes and every dissimilarity (METHOD 3)."""
    p, q = (np.bincount(label, weights=side, minlength=3) for side in pq)
    assert float(dissimilarity(p, q, kind)) <= float(dissimilarity(pq[0], pq[1], kind)) + 1e-12


@settings(max_examples=40)
@given(pairs, arrays(np.int64, 7, elements=st.integers(0, 2)))
def test_share_of_a_label_is_the_correlation_ratio_of_s(pq: np.ndarray, label: np.ndarray) -> None:
    """D[O] of the label's histograms is E_m[(E_m[s|O])^2] to 1e-12 (METHOD 3)."""
    p, q = pq
    m, signed = (p + q) / 2, (p - q) / 2
    mass = np.bincount(label, weights=m, minlength=3)
    mean_s = np.bincount(label, weights=signed, minlength=3)[mass > 0] / mass[mass > 0]
    merged = np.stack([np.bincount(label, weights=side, minlength=3) for side in pq])
    assert float(dissimilarity(*merged)) == pytest.approx(float(np.sum(mass[mass > 0] * mean_s**2)), abs=1e-12)


def test_a_small_step_costs_its_square_times_the_fisher_information(rng: np.random.Generator) -> None:
    """D ~ d^2 F/4 and JS (nats) ~ d^2 F/8 along an exponential family, within 0.1% at d = 0.01."""
    base, statistic, step = rng.dirichlet(np.ones(9)), rng.standard_normal(9), 0.01
    tilted = [base * np.exp(t * statistic) for t in (-step / 2, step / 2)]
    p, q = (x / x.sum() for x in tilted)
    fisher = np.sum(base * statistic**2) - np.sum(base * statistic) ** 2
    assert float(dissimilarity(p, q)) == pytest.approx(step**2 * fisher / 4, rel=1e-3)
    assert float(dissimilarity(p, q, "jensen_shannon")) * np.log(2) == pytest.approx(step**2 * fisher / 8, rel=1e-3)


@pytest.mark.parametrize(
    ("n_tokens", "expected", "tolerance"),
    [(1, 0.002, 1e-3), (10, 0.024, 1e-3), (50, 0.11, 1e-2), (100, 0.20, 1e-2), (200, 0.35, 1e-2), (400, 0.55, 1e-2)],
)
def test_the_same_change_per_token_saturates_with_length(n_tokens: int, expected: float, tolerance: float) -> None:
    """METHOD 2's table: (.5,.3,.2) -> (.45,.33,.22) per token, summed exactly over the counts; within one in its last digit."""
    counts = np.array([(a, b, n_tokens - a - b) for a in range(n_tokens + 1) for b in range(n_tokens + 1 - a)])
    ways = gammaln(n_tokens + 1) - gammaln(counts + 1).sum(axis=1)
    p, q = (np.exp(ways + counts @ np.log(probability)) for probability in ([0.5, 0.3, 0.2], [0.45, 0.33, 0.22]))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert float(dissimilarity(p, q)) == pytest.approx(expected, abs=tolerance)


@settings(max_examples=40)
@given(st.floats(-1, 1), st.sampled_from(KINDS))
def test_the_integrand_is_symmetric_bounded_and_written_as_in_the_method(s: float, kind: Kind) -> None:
    """The integrand u g(u) + (1-u) g(1-u) at u = (1+s)/2 lies in [0, 1], is even in s, 0 at no and 1 at full separation."""

    def g(u: float) -> float:
        if kind == "linear":
            return 2 * u - 1
        if kind == "total_variation":
            return abs(2 * u - 1)
        return float(np.log2(2 * u)) if u > 0 else 0.0

    u = (1 + s) / 2
    found = float(pointwise(np.array(s), kind))
    assert found == pytest.approx(u * g(u) + (1 - u) * g(1 - u), abs=1e-9)
    assert found == pytest.approx(float(pointwise(np.array(-s), kind)), abs=1e-12)
    assert float(pointwise(np.array(0.0), kind)) == 0.0
    assert float(pointwise(np.array(1.0), kind)) == float(pointwise(np.array(-1.0), kind)) == 1.0


# ---- contrasts of sides


def test_each_side_counts_one_half_per_prompt_whatever_its_number() -> None:
    """Weights are 1/(2 n) of the side; s is +1 before and -1 after; a prompt with one side only is left out and can be seen."""
    prompt = np.array([7, 7, 7, 7, 3, 3, 9, 9])
    after = np.array([False, True, True, True, False, True, True, True])
    contrast = side_contrast(after, prompt)
    assert contrast.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert contrast.weight.tolist() == [1 / 2, 1 / 6, 1 / 6, 1 / 6, 1 / 2, 1 / 2]
    assert contrast.s.tolist() == [1, -1, -1, -1, 1, -1]
    assert contrast.prompt.tolist() == [1, 1, 1, 1, 0, 0]
    assert contrast.ess == pytest.approx([2, 1 / (1 / 4 + 3 / 36)])
    assert contrast.n_prompts == 2
    assert not contrast.likelihoods


def test_contrast_needs_both_sides_of_a_prompt() -> None:
    """No prompt with both sides is one line of error, not a number; so is no response at all."""
    with pytest.raises(SampleError, match="both sides, found none"):
        side_contrast(np.array([True, False]), np.array([0, 1]))
    with pytest.raises(SampleError, match="both sides, found none"):
        side_contrast(np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))


def test_arrays_of_different_responses_are_refused() -> None:
    """Arrays that differ in length raise a ShapeError naming the shapes."""
    n = np.zeros(3, dtype=np.int64)
    with pytest.raises(ShapeError, match=r"'\(2,\)', '\(3,\)'"):
        Contrast(np.ones(2), np.ones(3), n, False, n, n)


def test_a_part_of_a_contrast_keeps_each_side_at_one_half() -> None:
    """Taking rows drops prompts that lose a side and renormalises the others; taking nothing usable is an error."""
    contrast = side_contrast(np.tile([False, True], 9), np.repeat([0, 1, 2], 6))
    part = contrast.take(np.array([0, 1, 2, 6, 8, 12, 13]))
    assert part.index.tolist() == [0, 1, 2, 12, 13]
    for p in range(2):
        for side in (1, -1):
            assert part.weight[(part.prompt == p) & (part.s == side)].sum() == pytest.approx(0.5)
    with pytest.raises(SampleError, match="found none"):
        contrast.take(np.array([0, 2, 4]))


def test_sides_alone_have_no_total_change() -> None:
    """Without likelihoods s^2 is always 1, so the total is refused instead of printed as 1."""
    with pytest.raises(SampleError, match="needs likelihoods"):
        total_change(side_contrast(np.array([False, True]), np.array([0, 0])))


# ---- contrasts from likelihoods


def _exact_sample(tables: np.ndarray, anchors: list[int], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihoods `(n_responses, n_steps)`, outcome and anchor of a sample that holds every outcome exactly n P_a times."""
    outcome, drawn_at = [], []
    for a in anchors:
        times = np.rint(n * tables[a]).astype(int)
        assert np.allclose(times, n * tables[a])
        outcome.append(np.repeat(np.arange(tables.shape[1]), times))
        drawn_at.append(np.full(times.sum(), a))
    rows = np.concatenate(outcome)
    return np.log(tables[:, rows].T), rows, np.concatenate(drawn_at)


TABLES = np.array([[8, 6, 4, 2], [7, 5, 5, 3], [5, 5, 5, 5], [3, 4, 6, 7], [2, 3, 6, 9]]) / 20
"""Five checkpoints over four outcomes, in twentieths."""


@pytest.mark.parametrize("anchors", [[0, 4], [2], [0, 2, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize(("left", "right"), [([0], [4]), ([0, 1], [3, 4]), ([1], [2])])
def test_a_sample_in_exact_proportion_gives_the_exact_change(anchors: list[int], left: list[int], right: list[int]) -> None:
    """Balance-heuristic weights are an identity: with every outcome drawn exactly n P_a times, D and the mean weight are exact.

    The weights that D is read with differ from them by what chance, which is absent here, would have cost: 1/n of D at the most.
    """
    log_likelihood, _, drawn_at = _exact_sample(TABLES, anchors, 20)
    contrast = likelihood_contrast(log_likelihood, drawn_at, np.zeros(drawn_at.size, dtype=int), np.array(left), np.array(right))
    p, q = TABLES[left].mean(axis=0), TABLES[right].mean(axis=0)
    assert contrast.drawn is not None
    plain = contrast.drawn.weight / contrast.drawn.weight.sum()
    for kind in KINDS:
        exact = float(dissimilarity(p, q, kind))
        assert plain @ pointwise(contrast.s, kind) == pytest.approx(exact, abs=1e-12)
        assert contrast.mean(pointwise(contrast.s, kind)) == pytest.approx(exact, rel=1 / drawn_at.size)
    assert contrast.mean_weight == pytest.approx([1.0], abs=1e-12)
    assert plain @ contrast.s == pytest.approx(0.0, abs=1e-12)
    assert contrast.weight.sum() == pytest.approx(1.0, abs=1e-12)
    assert contrast.ess == pytest.approx([1 / np.sum(plain**2)])


def test_responses_drawn_in_the_two_windows_all_weigh_the_same() -> None:
    """With the windows themselves as anchors m/q is 1, so the effective sample size is the number of responses."""
    log_likelihood, _, drawn_at = _exact_sample(TABLES, [0, 4], 20)
    contrast = likelihood_contrast(log_likelihood, drawn_at, np.zeros(40, dtype=int), np.array([0]), np.array([4]))
    assert contrast.weight == pytest.approx(np.full(40, 1 / 40))
    assert contrast.ess == pytest.approx([40])


def test_anchor_density_counts_the_draws_of_each_prompt() -> None:
    """q(x) = sum_a n_a P_a(x) / sum_a n_a with the counts n_a of the response's own prompt."""
    prompt, drawn_at = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 2])
    log_likelihood = np.log(TABLES[:3, [0, 1, 2, 3, 0]].T)
    expected = []
    for i in range(5):
        mine = drawn_at[prompt == prompt[i]]
        expected.append(np.mean([np.exp(log_likelihood[i, a]) for a in mine]))
    assert Mixture.of(log_likelihood, drawn_at, prompt).log_q == pytest.approx(np.log(expected), abs=1e-12)


def test_thousands_of_nats_are_no_trouble(rng: np.random.Generator) -> None:
    """Only differences between checkpoints count: 10000 nats off every response change neither s nor weights."""
    log_likelihood = rng.normal(-40, 3, (30, 4))
    drawn_at, prompt = np.repeat([0, 3], 15), np.tile(np.arange(3), 10)
    near = likelihood_contrast(log_likelihood, drawn_at, prompt, np.array([0, 1]), np.array([2, 3]))
    far = likelihood_contrast(log_likelihood - 10_000, drawn_at, prompt, np.array([0, 1]), np.array([2, 3]))
    assert far.s == pytest.approx(near.s, abs=1e-9)
    assert far.weight == pytest.approx(near.weight, rel=1e-9)
    assert mixture_log_probability(log_likelihood - 10_000, np.array([0, 1])) == pytest.approx(
        mixture_log_probability(log_likelihood, np.array([0, 1])) - 10_000
    )


def test_sides_that_differ_by_thousands_of_nats_are_told_apart_exactly() -> None:
    """Where the checkpoints exclude each other's responses s is exactly +-1 and D exactly 1."""
    log_likelihood = np.array([[-10.0, -5000.0], [-12.0, -7000.0], [-6000.0, -11.0], [-9000.0, -13.0]])
    contrast = likelihood_contrast(log_likelihood, np.array([0, 0, 1, 1]), np.zeros(4, dtype=int), np.array([0]), np.array([1]))
    assert contrast.s.tolist() == [1, 1, -1, -1]
    assert contrast.mean(contrast.s**2) == 1.0


def test_windows_that_no_anchor_covers_fail_the_weight_check_without_breaking_a_number() -> None:
    """Responses thousands of nats away from both windows leave finite weights, an effective size of about 1 and a mean weight of 0."""
    log_likelihood = np.array([[-10.0, -3000.0, -3001.0], [-11.0, -3500.0, -3400.0], [-12.0, -4000.0, -4000.0]])
    contrast = likelihood_contrast(log_likelihood, np.zeros(3, dtype=int), np.zeros(3, dtype=int), np.array([1]), np.array([2]))
    assert np.isfinite(contrast.weight).all()
    assert contrast.ess == pytest.approx([1.0])
    assert contrast.mean_weight.tolist() == [0.0]
    assert contrast.weight.sum() == pytest.approx(1.0)


def test_equal_checkpoints_show_no_change(rng: np.random.Generator) -> None:
    """Exact ties: D is 0 in every kind, without limits, as prompts that do not differ cannot say how much they could."""
    log_likelihood = np.repeat(rng.normal(-30, 5, (40, 1)), 2, axis=1)
    log_likelihood[:20] -= 4000
    contrast = likelihood_contrast(log_likelihood, np.tile([0, 1], 20), np.repeat(np.arange(8), 5), np.array([0]), np.array([1]))
    for kind in KINDS:
        assert total_change(contrast, kind).estimate == 0.0
        assert np.isnan(total_change(contrast, kind).low)


def _passes(contrast: Contrast) -> np.ndarray:
    """Per prompt: mean unnormalised weight 1 within four standard errors (plus .05, as for courses)."""
    return np.asarray(np.abs(contrast.mean_weight - 1) <= 4 * contrast.mean_weight_error + 0.05)


def test_weight_check_sees_a_missing_anchor(rng: np.random.Generator) -> None:
    """Mass that no anchor covers shows in the mean unnormalised weight of nearly every prompt; with all anchors no prompt fails."""
    before, after = (rng.dirichlet(np.ones(50), size=20) for _ in range(2))
    gap = np.repeat([[1e-9, 1.0]], 25, axis=1)
    before, after = before * gap[:, ::-1], after * gap
    run = PlantedRun(
        before / before.sum(axis=1, keepdims=True),
        after / after.sum(axis=1, keepdims=True),
        np.zeros((0, 20, 50), dtype=np.int64),
        logistic_course(21, 10, 1.5),
    )
    covered, missing = draw(run, [0, 10, 20], 40, rng), draw(run, [0], 120, rng)
    assert _passes(contrast_of(covered, [0, 1, 2], [18, 19, 20], likelihoods=True)).all()
    assert _passes(contrast_of(missing, [0, 1, 2], [18, 19, 20], likelihoods=True)).mean() <= 0.15


def test_weight_check_sees_a_sampler_of_another_temperature(rng: np.random.Generator) -> None:
    """Where training flattened the answers, responses drawn at temperature 1/2 but scored at 1 fail at other checkpoints than their own."""
    n_prompts, n = 20, 150
    sharp = rng.dirichlet(np.full(40, 0.5), size=n_prompts) + 1e-4
    tables = [x / x.sum(axis=1, keepdims=True) for x in (sharp, np.sqrt(sharp))]
    prompt = np.repeat(np.arange(n_prompts), n)
    passes = {}
    for temperature in (1.0, 0.5):
        drawn_from = tables[0] ** (1 / temperature)
        drawn_from /= drawn_from.sum(axis=1, keepdims=True)
        outcome = np.concatenate([rng.choice(40, n, p=row) for row in drawn_from])
        log_likelihood = np.log(np.stack([table[prompt, outcome] for table in tables], axis=1))
        contrast = likelihood_contrast(log_likelihood, np.zeros(prompt.size, dtype=int), prompt, np.array([0]), np.array([1]))
        passes[temperature] = _passes(contrast).mean()
    assert passes[1.0] >= 0.95
    assert passes[0.5] <= 0.1


def test_four_anchors_estimate_the_change_of_every_window_within_noise(rng: np.random.Generator) -> None:
    """Over 60 redraws the estimate of D from 4 anchors centres on the exact value within 3 standard errors plus .003 (ratio bias)."""
    run = planted_run(rng, n_prompts=6, effects=[1.0, 0.6], course=logistic_course(13, 6, 1.5))
    for left, right in (([0, 1, 2], [10, 11, 12]), ([4, 5], [6, 7])):
        found = []
        for _ in range(60):
            contrast = contrast_of(draw(run, [0, 4, 8, 12], 20, rng), left, right, likelihoods=True)
            found.append(contrast.mean(contrast.s**2))
        exact = exact_change(run, left, right)
        assert np.mean(found) == pytest.approx(exact, abs=3 * np.std(found) / np.sqrt(60) + 0.003)
        assert np.std(found) < 0.12


# ---- missing likelihoods


def test_responses_without_a_likelihood_in_the_windows_are_left_out_and_can_be_seen(rng: np.random.Generator) -> None:
    """A NaN where it is needed takes its response out (`index` says so); a NaN elsewhere does not matter."""
    log_likelihood = rng.normal(-20, 1, (12, 5))
    drawn_at, prompt = np.tile([0, 4], 6), np.repeat([0, 1], 6)
    full = likelihood_contrast(log_likelihood, drawn_at, prompt, np.array([0]), np.array([4]))
    log_likelihood[3, 2] = np.nan
    assert (likelihood_contrast(log_likelihood, drawn_at, prompt, np.array([0]), np.array([4])).s == full.s).all()
    log_likelihood[5, 4] = np.nan
    found = likelihood_contrast(log_likelihood, drawn_at, prompt, np.array([0]), np.array([4]))
    assert found.index.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert np.bincount(found.prompt, weights=found.weight) == pytest.approx([1, 1])


def test_banded_likelihoods_use_the_responses_scored_in_both_windows(rng: np.random.Generator) -> None:
    """Scored near its own checkpoint only, a response counts where windows and anchors score it, as if the others did not exist."""
    steps = 10
    drawn_at, prompt = np.repeat(np.arange(steps), 6), np.tile(np.arange(6), steps)
    log_likelihood = rng.normal(-20, 1, (60, steps))
    near = np.abs(np.arange(steps)[None, :] - drawn_at[:, None]) <= 5  # drawn at 2 to 8, a response is scored in both windows
    banded = np.where(near, log_likelihood, np.nan)
    inside = np.isin(drawn_at, [2, 3, 4, 5, 6, 7])  # 1 and 8 are not scored under each other, nor under all of these
    found = likelihood_contrast(banded, drawn_at, prompt, np.array([3, 4]), np.array([5, 6]))
    alone = likelihood_contrast(log_likelihood[inside], drawn_at[inside], prompt[inside], np.array([3, 4]), np.array([5, 6]))
    assert found.index.tolist() == np.flatnonzero(inside).tolist()
    assert found.weight == pytest.approx(alone.weight)
    assert found.s == pytest.approx(alone.s)


def test_windows_without_a_scored_response_are_an_error() -> None:
    """Nothing scored in both windows raises, with what was expected."""
    with pytest.raises(SampleError, match="scored under every checkpoint of both windows"):
        likelihood_contrast(
            np.array([[-1.0, np.nan], [np.nan, -2.0]]), np.array([0, 1]), np.zeros(2, dtype=int), np.array([0]), np.array([1])
        )


# ---- intervals of means


@pytest.mark.parametrize("likelihoods", [True, False])
def test_leave_one_out_means_are_the_means_of_the_other_prompts(likelihoods: bool, rng: np.random.Generator) -> None:
    """From 6 prompts on each value is the mean over the contrast without that prompt, computed anew."""
    run = planted_run(rng, n_prompts=7, effects=[0.5], n_outcomes=40)
    contrast = contrast_of(draw(run, [0, 1], 4, rng), [0], [1], likelihoods=likelihoods)
    values = rng.standard_normal(contrast.s.size)
    expected = [contrast.take(contrast.prompt != p).mean(values[contrast.prompt != p]) for p in range(7)]
    assert leave_one_out_means(contrast, values) == pytest.approx(expected, abs=1e-12)


def test_below_six_prompts_the_interval_leaves_out_parts_of_every_prompt(rng: np.random.Generator) -> None:
    """Groups then hold every prompt, there are as many as the smallest prompt has responses (20 at most), and limits are finite."""
    run = planted_run(rng, n_prompts=3, effects=[0.5], n_outcomes=40)
    for n_each, n_groups in ((4, 8), (30, 20)):
        contrast = contrast_of(draw(run, [0, 1], n_each, rng), [0], [1], likelihoods=True)
        assert not contrast.by_prompt
        for g in range(n_groups):
            assert set(contrast.prompt[contrast.group == g]) == {0, 1, 2}
        found = total_change(contrast)
        assert found.n_groups == n_groups
        assert found.low < found.estimate < found.high


def test_interval_of_the_total_covers_the_population(rng: np.random.Generator) -> None:
    """Prompts drawn from a population: the 95% interval of D covers the population's D in at least 90% of 200 runs (2 SE: 3%)."""
    run = planted_run(rng, n_prompts=300, effects=[0.7, 0.4], n_outcomes=60, heterogeneity=0.5)
    exact, covered = exact_change(run, [0], [1]), []
    for _ in range(200):
        part = run.at_prompts(rng.choice(300, 12, replace=False))
        found = total_change(contrast_of(draw(part, [0, 1], 8, rng), [0], [1], likelihoods=True))
        covered.append(found.low <= exact <= found.high)
    assert np.mean(covered) >= 0.90


def test_scoring_noise_fakes_half_its_square(rng: np.random.Generator) -> None:
    """The numerical floor is the D that independent errors of this size in both log-probabilities would show."""
    noise = 0.05
    difference = rng.normal(0, noise, 200_000) - rng.normal(0, noise, 200_000)
    assert squared_response_noise(noise) == pytest.approx(np.mean(np.tanh(difference / 2) ** 2), rel=0.02)
    assert squared_response_noise(0.0) == 0.0
