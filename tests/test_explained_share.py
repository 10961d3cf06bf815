from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.dissimilarity import Contrast, dissimilarity, jackknife_groups, leave_one_out_means, likelihood_contrast, side_contrast
from probes.errors import ShapeError
from probes.explained_share import (
    dummies,
    explained,
    length_bins,
    plug_in_share,
    residual_of,
    transfer,
    with_interaction,
)
from probes.shapley import shapley
from probes.synthetic import contrast_of, draw, exact_change, logistic_course, planted_run


def _random_contrast(seed: int, n_prompts: int = 7, likelihoods: bool = True) -> tuple[Contrast, list[np.ndarray]]:
    """Prompts of unequal size, unequal weights, and three labels of which one follows s."""
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(n_prompts), rng.integers(4, 9, n_prompts))
    n = prompt.size
    if likelihoods:
        s = np.tanh(rng.standard_normal(n))
        weight = rng.gamma(2.0, size=n)
        weight /= np.bincount(prompt, weights=weight)[prompt]
        contrast = Contrast(s, weight, prompt, True, jackknife_groups(prompt, s), np.arange(n))
    else:
        first = np.searchsorted(prompt, np.arange(n_prompts))
        after = rng.random(n) < 0.5
        after[first], after[first + 1] = False, True
        contrast = side_contrast(after, prompt)
    follows = np.digitize(contrast.s + rng.standard_normal(n), [-0.5, 0.5])
    return contrast, [follows, rng.integers(-1, 3, n), np.digitize(contrast.s * 0.5 + rng.standard_normal(n), [0.0])]


def _without_own(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slopes of normal equations that may be singular."""
    slope: np.ndarray = np.linalg.pinv(x, rcond=1e-10, hermitian=True) @ y
    return slope


def _brute_force(contrast: Contrast, labels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Per-prompt D[O] and leave-one-out predictions by refitting without each response, written as plainly as possible.

    A response leaves with weight w/(1-w), which is what it means to centre the labels without it.
    """
    n, p = contrast.s.size, contrast.n_prompts
    w = contrast.weight
    columns = [np.asarray(label == level, dtype=float) for label in labels for level in np.unique(label)]
    x, s = np.stack(columns, axis=1), contrast.s.copy()
    for q in range(p):
        rows = contrast.prompt == q
        x[rows] -= w[rows] @ x[rows]
        s[rows] -= w[rows] @ s[rows]
    gram = sum(w[i] * np.outer(x[i], x[i]) for i in range(n))
    right = sum(w[i] * s[i] * x[i] for i in range(n))
    left_out, products = np.zeros(n), np.zeros(p)
    for i in range(n):
        leaving = w[i] / (1 - w[i])
        own = np.sqrt(leaving) * x[i]
        alone = own @ np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ own > 1 - 1e-8
        left_out[i] = 0.0 if alone else x[i] @ _without_own(gram - np.outer(own, own), right - leaving * s[i] * x[i])
        products[contrast.prompt[i]] += w[i] * s[i] * left_out[i]
    total = np.mean([(w * contrast.s**2)[contrast.prompt == q].sum() for q in range(p)]) if contrast.likelihoods else 1.0
    v = np.array([(w**2)[contrast.prompt == q].sum() for q in range(p)])
    shown = 0.0
    for _ in range(2000):  # the fixed point that the correction solves for
        corrected = products * (1 - (1 - shown) * v) / (1 - (1 - total) * v) ** 2
        shown = corrected.mean()
    return corrected, left_out


# ---- the estimator


@pytest.mark.parametrize("likelihoods", [True, False])
@pytest.mark.parametrize("which", [[0], [1], [0, 1], [0, 1, 2]])
def test_closed_form_is_the_brute_force_loop(likelihoods: bool, which: list[int]) -> None:
    """Refitting the regression once per response gives the same D[O] in every prompt, single and joint."""
    for seed in range(3):
        contrast, labels = _random_contrast(seed, likelihoods=likelihoods)
        used = [labels[k] for k in which]
        expected, left_out = _brute_force(contrast, used)
        found = explained(contrast, used)
        assert found.per_prompt == pytest.approx(expected, abs=1e-10)
        assert found.change == pytest.approx(expected.mean(), abs=1e-10)
        assert residual_of(contrast, used) == pytest.approx(contrast.s - left_out, abs=1e-9)


@pytest.mark.parametrize("likelihoods", [True, False])
def test_leave_one_out_values_are_the_estimates_on_the_other_prompts(likelihoods: bool) -> None:
    """Each jackknife value equals the estimate computed anew without that prompt, numerator and denominator."""
    contrast, labels = _random_contrast(5, n_prompts=6, likelihoods=likelihoods)
    for used in (labels[:1], labels):
        found = explained(contrast, used)
        for p in range(6):
            rows = np.flatnonzero(contrast.prompt != p)
            anew = explained(contrast.take(rows), [label[rows] for label in used])
            assert found.change_loo[p] == pytest.approx(anew.change, abs=1e-12)
            assert found.total_loo[p] == pytest.approx(anew.total, abs=1e-12)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.booleans())
def test_share_does_not_depend_on_names_of_levels_or_order_of_responses(seed: int, likelihoods: bool) -> None:
    """Renaming levels, shuffling responses or repeating a label changes nothing."""
    contrast, labels = _random_contrast(seed, likelihoods=likelihoods)
    rng = np.random.default_rng(seed)
    found = explained(contrast, labels[:2]).change
    assert explained(contrast, [7 - 2 * labels[0], labels[1] + 40]).change == pytest.approx(found, abs=1e-10)
    assert explained(contrast, [labels[1], labels[0], labels[0]]).change == pytest.approx(found, abs=1e-9)
    order = rng.permutation(contrast.s.size)
    prompt = contrast.prompt[order]
    shuffled = Contrast(contrast.s[order], contrast.weight[order], prompt, likelihoods, prompt, order)
    assert explained(shuffled, [label[order] for label in labels[:2]]).change == pytest.approx(found, abs=1e-10)


def test_set_accounting_adds_up() -> None:
    """The empty set explains nothing; unique parts and the rest, and joint and residual, add up to what they are parts of."""
    contrast, labels = _random_contrast(1)
    nothing, joint, others = explained(contrast, []), explained(contrast, labels), explained(contrast, labels[1:])
    assert nothing.change == 0.0
    assert nothing.share_interval.estimate == 0.0
    assert nothing.residual().share_interval.estimate == pytest.approx(1.0)
    unique = joint.minus(others)
    assert unique.change + others.change == pytest.approx(joint.change)
    assert unique.change_loo + others.change_loo == pytest.approx(joint.change_loo)
    assert joint.share_interval.estimate + joint.residual().share_interval.estimate == pytest.approx(1.0)
    assert joint.total == pytest.approx(contrast.mean(contrast.s**2))
    assert joint.per_prompt.mean() == pytest.approx(joint.change)
    assert joint.n == contrast.s.size


def test_a_label_with_one_level_explains_exactly_nothing() -> None:
    """All labels equal: no column, D[O] 0, every leave-one-out value 0, and the joint share unchanged beside another label."""
    contrast, labels = _random_contrast(2)
    same = np.full(contrast.s.size, 3)
    found = explained(contrast, [same])
    assert found.change == 0.0
    assert (found.change_loo == 0).all()
    assert explained(contrast, [labels[0], same]).change == explained(contrast, [labels[0]]).change
    assert dummies(same).shape == (contrast.s.size, 0)


@pytest.mark.parametrize("likelihoods", [True, False])
def test_a_response_alone_at_its_level_is_explained_by_nothing(likelihoods: bool) -> None:
    """A level of a single response cannot be predicted once it is left out: it is counted and contributes 0, whatever its weight."""
    for seed in range(4):
        contrast, _ = _random_contrast(seed, likelihoods=likelihoods)
        for i in (0, int(np.argmax(contrast.weight)), int(np.argmin(contrast.weight))):
            label = np.zeros(contrast.s.size, dtype=int)
            label[i] = 4
            found = explained(contrast, [label])
            assert found.n_alone == 1
            assert np.isfinite(found.change_loo).all()
            assert residual_of(contrast, [label])[i] == contrast.s[i]


def test_every_response_a_level_of_its_own_explains_nothing() -> None:
    """A label that names each response would have the plug-in share 1; left out, nothing can be predicted and the share is 0."""
    contrast, _ = _random_contrast(3)
    label = np.arange(contrast.s.size)
    found = explained(contrast, [label])
    assert found.n_alone == contrast.s.size
    assert found.change == 0.0
    assert plug_in_share(contrast, label) == pytest.approx(1.0)


def test_missing_judgements_are_a_level_of_their_own(rng: np.random.Generator) -> None:
    """Level -1 counts like any level: where only the later answers cannot be read, missingness itself explains the change."""
    prompt, after = np.repeat(np.arange(10), 20), np.tile([False, True], 100)
    contrast = side_contrast(after, prompt)
    label = np.where(after & (rng.random(200) < 0.9), -1, rng.integers(0, 3, 200))
    found = explained(contrast, [label])
    assert found.change == explained(contrast, [np.where(label < 0, 99, label)]).change
    assert found.change_interval.low > 0.6


def test_labels_of_other_responses_are_refused() -> None:
    """A label that does not have one entry per response is a ShapeError, in every function that takes labels."""
    contrast, labels = _random_contrast(0)
    for function in (explained, residual_of):
        with pytest.raises(ShapeError, match="as the responses"):
            function(contrast, [labels[0][1:]])
    many = side_contrast(np.tile([False, True], 100), np.repeat(np.arange(10), 20))
    for single in (transfer, with_interaction):
        with pytest.raises(ShapeError, match="as the responses"):
            single(many, labels[0])


# ---- few prompts, few responses, trouble


@pytest.mark.slow
def test_shares_from_a_few_responses_at_several_anchors_are_unbiased() -> None:
    """Six anchors with 3 responses each, a large change and a large share: over 80 redraws the mean is exact within .007 plus 2 errors.

    Centring by prompt loses only what lies within anchors; taken for two sides, the share would be .018 too large.
    """
    rng = np.random.default_rng(0)
    run = planted_run(rng, n_prompts=24, effects=[3.0, 1.0], hidden=1.0, n_outcomes=2000, n_levels=5, course=logistic_course(61, 16, 2.0))
    left, right = np.arange(8, 16), np.arange(16, 24)
    exact = exact_change(run, range(8, 16), range(16, 24), run.labels[[0]]) / exact_change(run, range(8, 16), range(16, 24))
    found = []
    for _ in range(80):
        sample = draw(run, (0, 8, 12, 19, 30, 60), 3, rng)
        contrast = likelihood_contrast(sample.log_likelihood, sample.drawn_at, sample.prompt, left, right)
        part = explained(contrast, [sample.labels_of(run)[0]])
        found.append(part.change / part.total)
    assert exact > 0.8
    assert abs(np.mean(found) - exact) < 0.007 + 2 * np.std(found) / np.sqrt(80)


@pytest.mark.slow
def test_intervals_of_what_explains_nothing_cover_nothing(rng: np.random.Generator) -> None:
    """A label that does not move, alone or beyond one that does: 95% intervals contain 0 in 95% of 60 runs (jackknife alone: 89)."""
    run = planted_run(np.random.default_rng(0), n_prompts=300, effects=[1.5, 0.0], n_outcomes=100, n_levels=2)
    covered = []
    for _ in range(60):
        part = run.at_prompts(rng.choice(300, 24, replace=False))
        sample = draw(part, [0, 1], 3, rng)
        contrast = contrast_of(sample, [0], [1], likelihoods=False)
        moved, still = sample.labels_of(part)
        alone, beyond = explained(contrast, [still]), explained(contrast, [moved, still]).minus(explained(contrast, [moved]))
        covered.append([found.change_interval.low <= 0 <= found.change_interval.high for found in (alone, beyond)])
    assert (np.mean(covered, axis=0) >= 0.95).all()


def test_below_six_prompts_parts_of_prompts_are_left_out(rng: np.random.Generator) -> None:
    """Then every jackknife value is the estimate without one part of every prompt, and the interval is finite."""
    run = planted_run(rng, n_prompts=3, effects=[0.8], n_outcomes=100)
    sample = draw(run, [0, 1], 10, rng)
    for likelihoods in (True, False):
        contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
        label = sample.labels_of(run)[0]
        found = explained(contrast, [label])
        assert found.change_loo.size == 20
        for g in range(20):
            rows = contrast.complete(contrast.group != g)
            assert found.change_loo[g] == pytest.approx(explained(contrast.take(rows), [label[rows]]).change, abs=1e-12)
        assert np.isfinite(found.share_interval.low)


def test_one_response_a_side_is_enough_for_everything_but_interactions(rng: np.random.Generator) -> None:
    """The public format of most data, one answer a prompt and side, gives shares, intervals and transfer; interactions are refused."""
    run = planted_run(rng, n_prompts=60, effects=[1.2])
    sample = draw(run, [0, 1], 1, rng)
    for likelihoods in (True, False):
        contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
        label = sample.labels_of(run)[0]
        found = explained(contrast, [label])
        assert found.change_interval.low > 0
        moved = transfer(contrast, label)
        assert moved is not None
        assert moved.change > 0
        assert with_interaction(contrast, label) is None


@pytest.mark.parametrize("n_prompts", [1, 2, 5])
def test_few_prompts_with_one_response_a_side_have_no_limits(n_prompts: int) -> None:
    """No part can be left out without losing a side: limits are NaN, a single pair predicts nothing, and nothing raises or warns."""
    contrast = side_contrast(np.tile([False, True], n_prompts), np.repeat(np.arange(n_prompts), 2))
    label = np.tile([0, 1], n_prompts)
    found = explained(contrast, [label])
    assert found.change == pytest.approx(0.0 if n_prompts == 1 else 1.0)
    assert np.isnan(found.change_interval.low)
    assert np.isnan(leave_one_out_means(contrast, label.astype(float))).all()
    assert transfer(contrast, label) is None
    assert len(shapley(contrast, [label, label])) == 2


def test_no_change_has_no_share() -> None:
    """All s equal to 0: D[O] is 0 and the share NaN without limits, never 0 of nothing."""
    contrast, labels = _random_contrast(0)
    still = Contrast(np.zeros_like(contrast.s), contrast.weight, contrast.prompt, True, contrast.group, contrast.index)
    found = explained(still, labels)
    assert found.change == 0.0
    assert np.isnan([found.share_interval.estimate, found.share_interval.low]).all()


def test_weights_that_vanish_and_prompts_of_one_response_stay_finite(rng: np.random.Generator) -> None:
    """Responses of weight 0, one response with all the weight, and a prompt of a single response leave every number finite."""
    log_likelihood = rng.normal(-30, 1, (60, 3))
    log_likelihood[:10, 1:] -= 4000.0  # impossible in both windows
    prompt = np.concatenate([np.repeat(np.arange(7), 8), [0, 1, 2, 7]])
    drawn_at = np.concatenate([np.zeros(10, dtype=int), np.tile([1, 2], 25)])
    contrast = likelihood_contrast(log_likelihood, drawn_at, prompt, np.array([1]), np.array([2]))
    assert (contrast.weight == 0).any()
    assert contrast.weight.max() == pytest.approx(1.0)
    labels = [rng.integers(0, 3, 60), rng.integers(0, 2, 60)]
    for used in (labels[:1], labels):
        found = explained(contrast, used)
        assert np.isfinite([found.change, found.total]).all()
        assert np.isfinite(found.change_loo).all()
        assert np.isfinite(found.per_prompt).all()
        assert np.isfinite(residual_of(contrast, used)).all()


# ---- interaction and transfer


def test_interaction_sees_what_changes_sign_between_prompts(rng: np.random.Generator) -> None:
    """A label that rises on half of the prompts and falls on the rest explains much with interaction, but nothing additive, nothing new."""
    n, prompt = 400, np.repeat(np.arange(10), 40)
    after = np.tile([False, True], 200)
    rising = np.where(rng.random(n) < 0.8, after, ~after).astype(int)
    mixed = np.where(prompt % 2 == 0, rising, 1 - rising)
    contrast = side_contrast(after, prompt)
    values = {}
    for name, label in (("rising", rising), ("mixed", mixed)):
        inside, moved = with_interaction(contrast, label), transfer(contrast, label)
        assert inside is not None
        assert moved is not None
        values[name] = (explained(contrast, [label]).change, inside.change, moved.change)
    assert values["rising"] == pytest.approx((0.36, 0.36, 0.36), abs=0.1)
    assert values["mixed"][0] == pytest.approx(0.0, abs=0.03)
    assert values["mixed"][1] == pytest.approx(values["rising"][1], abs=1e-9)
    assert values["mixed"][2] < 0.01


@pytest.mark.parametrize("likelihoods", [True, False])
def test_interaction_of_a_label_that_explains_nothing_is_nothing(likelihoods: bool, rng: np.random.Generator) -> None:
    """Over 80 redraws a random label has an interaction column of 0 within 3 standard errors (a plain mean over the others: -D/19)."""
    run = planted_run(rng, n_prompts=8, effects=[1.0], n_outcomes=100)
    found = []
    for _ in range(80):
        contrast = contrast_of(draw(run, [0, 1], 10, rng), [0], [1], likelihoods=likelihoods)
        value = with_interaction(contrast, rng.integers(0, 4, contrast.s.size))
        assert value is not None
        found.append(value.change)
    assert np.mean(found) == pytest.approx(0.0, abs=3 * np.std(found) / np.sqrt(80))
    assert 3 * np.std(found) / np.sqrt(80) < (0.008 if likelihoods else 0.025)


def test_columns_that_cannot_be_read_are_absent(rng: np.random.Generator) -> None:
    """Interaction needs 10 responses a side, transfer three prompts, and both the jackknife over prompts."""
    run = planted_run(rng, n_prompts=8, effects=[1.0])
    for n_each, there in ((9, False), (10, True)):
        contrast = contrast_of(draw(run, [0, 1], n_each, rng), [0], [1], likelihoods=False)
        assert (with_interaction(contrast, rng.integers(0, 3, contrast.s.size)) is not None) is there
    few = contrast_of(draw(run.at_prompts(np.arange(5)), [0, 1], 20, rng), [0], [1], likelihoods=True)
    assert with_interaction(few, rng.integers(0, 3, few.s.size)) is None
    assert transfer(few, rng.integers(0, 3, few.s.size)) is None


@pytest.mark.parametrize("likelihoods", [True, False])
@pytest.mark.parametrize("n_each", [1, 5])
def test_transfer_of_the_same_effect_everywhere_is_the_whole_of_it(likelihoods: bool, n_each: int, rng: np.random.Generator) -> None:
    """With one effect in all of 60 prompts, transfer over 40 redraws lies below the exact D[O] by no more than learning it costs."""
    run = planted_run(rng, n_prompts=60, effects=[1.0], heterogeneity=0.0, n_levels=2, n_outcomes=100)
    exact, found = exact_change(run, [0], [1], run.labels), []
    for _ in range(40):
        sample = draw(run, [0, 1], n_each, rng)
        value = transfer(contrast_of(sample, [0], [1], likelihoods=likelihoods), sample.labels_of(run)[0])
        assert value is not None
        found.append(value.change)
    error = 3 * np.std(found) / np.sqrt(40)
    assert exact - 2 / (60 * n_each) - error <= np.mean(found) <= exact + error + 0.002


# ---- what is shown beside shares


def test_plug_in_share_of_complete_tables_is_exact_for_every_dissimilarity(rng: np.random.Generator) -> None:
    """From histograms of a whole table the plug-in share is D_g[O]/D_g exactly, for linear, Jensen-Shannon and total variation."""
    n_prompts, n_outcomes = 4, 30
    p, q = rng.dirichlet(np.ones(n_outcomes), size=n_prompts), rng.dirichlet(np.ones(n_outcomes), size=n_prompts)
    label = rng.integers(0, 3, (n_prompts, n_outcomes))
    m, s = (p + q) / 2, (p - q) / (p + q)
    prompt = np.repeat(np.arange(n_prompts), n_outcomes)
    contrast = Contrast(s.ravel(), m.ravel(), prompt, True, prompt, np.arange(prompt.size))
    merged = [np.stack([np.bincount(label[k], weights=side[k], minlength=3) for k in range(n_prompts)]) for side in (p, q)]
    for kind in ("linear", "jensen_shannon", "total_variation"):
        expected = dissimilarity(merged[0], merged[1], kind).mean() / dissimilarity(p, q, kind).mean()
        assert plug_in_share(contrast, label.ravel(), kind) == pytest.approx(float(expected), abs=1e-12)


def test_plug_in_share_is_too_large_where_the_estimate_is_not(rng: np.random.Generator) -> None:
    """Labels that say nothing, 8 prompts x 5 a side, 5 levels: plug-in above .1, leave-one-out 0 within 3 standard errors of 100 runs."""
    run = planted_run(rng, n_prompts=8, effects=[1.0], n_outcomes=100)
    plug_in, left_out = [], []
    for _ in range(100):
        contrast = contrast_of(draw(run, [0, 1], 5, rng), [0], [1], likelihoods=True)
        label = rng.integers(0, 5, contrast.s.size)
        plug_in.append(plug_in_share(contrast, label))
        left_out.append(explained(contrast, [label]).share_interval.estimate)
    assert np.mean(plug_in) > 0.1
    assert np.mean(left_out) == pytest.approx(0.0, abs=float(3 * np.std(left_out) / 10))


def test_residual_without_labels_is_s_and_with_the_whole_answer_is_little(rng: np.random.Generator) -> None:
    """Nothing accepted leaves s itself; a label that is the sign of s leaves much less, with no response blown up where s is near 0."""
    contrast, _ = _random_contrast(4, n_prompts=20)
    assert (residual_of(contrast, []) == contrast.s).all()
    left = residual_of(contrast, [(contrast.s > 0).astype(int)])
    assert contrast.mean(left**2) < 0.5 * contrast.mean(contrast.s**2)
    assert np.abs(left - contrast.s).max() < 1.5


# ---- length


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=300))
def test_length_bins_keep_the_order_of_lengths(lengths: list[int]) -> None:
    """Bins rise with length, equal lengths share a bin, and there are never more than 24 or than distinct lengths."""
    n_words = np.array(lengths)
    bins = length_bins(n_words)
    order = np.argsort(n_words, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert all(np.ptp(bins[n_words == n]) == 0 for n in np.unique(n_words))
    assert np.unique(bins).size <= min(24, np.unique(n_words).size)


def test_there_are_eight_length_bins_at_least_and_they_are_filled_evenly(rng: np.random.Generator) -> None:
    """Distinct lengths give at least 8 bins that hold about the same number of responses, the outer ones a quarter of that."""
    for n in (400, 2000):
        counts = np.unique(length_bins(rng.permutation(n)), return_counts=True)[1]
        assert counts.size >= 8
        assert np.ptp(counts[2:-2]) <= 2
        assert counts[[0, -1]] == pytest.approx(counts[2] / 4, abs=2)
    assert np.unique(length_bins(rng.permutation(400), n_bins=10)).size == 10
