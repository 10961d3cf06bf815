from __future__ import annotations

import numpy as np
import pytest

from probes.anchor_calibration import anchor_calibration
from probes.dissimilarity import likelihood_contrast
from probes.errors import SampleError
from probes.mixture import MIN_ESS, Mixture, covered, normalised, strata_of, usable_rows, without_ratio_bias
from probes.synthetic import PlantedRun, draw, logistic_course, planted_run
from probes.trajectory import course, step_weights
from probes.transition import find_transitions, transition_curve

N_STEPS = 31


def _run(rng: np.random.Generator, n_prompts: int = 12) -> PlantedRun:
    return planted_run(rng, n_prompts=n_prompts, effects=[1.5], n_outcomes=80, course=logistic_course(N_STEPS, 14, 2))


def _apart(rng: np.random.Generator, n_prompts: int = 12) -> PlantedRun:
    """A run whose later answers are none of the earlier ones: mixed in the middle, disjoint at the ends."""
    half = np.repeat([[1.0, 1e-12]], 40, axis=0).T.reshape(-1)
    tables = [rng.dirichlet(np.ones(80), size=n_prompts) * gap for gap in (half, half[::-1])]
    before, after = (table / table.sum(axis=1, keepdims=True) for table in tables)
    return PlantedRun(before, after, np.tile(np.arange(80) >= 40, (1, n_prompts, 1)).astype(int), logistic_course(N_STEPS, 14, 2))


# ---- what stands for what


def test_anchors_along_the_change_stand_for_every_step(rng: np.random.Generator) -> None:
    """Drawn at both ends and in the middle, 10 each, every checkpoint and every split is known."""
    run = _run(rng)
    sample = draw(run, [0, 14, 30], 10, rng)
    weights = step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt)
    assert weights.covered().all()
    curve = transition_curve(sample.log_likelihood, sample.drawn_at, sample.prompt, np.arange(N_STEPS), 3)
    assert np.isfinite(curve.curve).all()


@pytest.mark.parametrize("n_each", [4, 40])
def test_two_far_apart_checkpoints_with_nothing_between_are_unknown(n_each: int, rng: np.random.Generator) -> None:
    """Answers that come and go between two sampled checkpoints are seen by neither: course and curve are unknown there, not numbers."""
    run = _apart(rng)
    between = rng.dirichlet(np.ones(80), size=12)  # a third kind of answers, which only the middle of the run gives
    share = np.exp(-(((np.arange(N_STEPS) - 15) / 4.0) ** 2))[:, None, None]
    tables = np.stack([run.table(t) for t in range(N_STEPS)])
    whole = np.concatenate([(1 - share) * tables, share * between], axis=2) + 1e-300
    outcome = [np.concatenate([rng.choice(160, n_each, p=whole[t, p] / whole[t, p].sum()) for p in range(12)]) for t in (0, 30)]
    prompt, drawn_at = np.tile(np.repeat(np.arange(12), n_each), 2), np.repeat([0, 30], 12 * n_each)
    log_likelihood = np.log(whole[:, prompt, np.concatenate(outcome)].T)
    found = course(step_weights(log_likelihood, drawn_at, prompt), np.ones(prompt.size), np.arange(N_STEPS))
    assert np.isfinite(found.estimate[[0, 1, 29, 30]]).all()
    assert np.isnan(found.estimate[10:21]).all()
    curve = transition_curve(log_likelihood, drawn_at, prompt, np.arange(N_STEPS), 2)
    assert np.isnan(curve.curve[9:19]).all()
    peak = find_transitions(curve)[0]
    assert not peak.found
    assert "unknown" in peak.reason
    assert not likelihood_contrast(log_likelihood, drawn_at, prompt, np.arange(11, 15), np.arange(15, 19)).covered


def test_disjoint_ends_are_known_at_the_ends(rng: np.random.Generator) -> None:
    """Both sides sampled: their contrast is known (and total), whatever lies between."""
    run = _apart(rng)
    sample = draw(run, [0, 30], 6, rng)
    contrast = likelihood_contrast(sample.log_likelihood, sample.drawn_at, sample.prompt, np.array([0]), np.array([30]))
    assert contrast.covered
    assert contrast.balance().estimate == pytest.approx(0, abs=0.01)


def test_one_response_a_side_is_enough_for_a_contrast(rng: np.random.Generator) -> None:
    """What is asked of a contrast is that its weights do not concentrate, not that responses are many."""
    run = _run(rng, n_prompts=40)
    sample = draw(run, [0, 30], 1, rng)
    contrast = likelihood_contrast(sample.log_likelihood, sample.drawn_at, sample.prompt, np.array([0]), np.array([30]))
    assert contrast.ess.max() < MIN_ESS
    assert contrast.covered


def test_two_checkpoints_far_from_all_others_are_compared_by_what_was_drawn_there() -> None:
    """Every checkpoint sampled once and none like another: a contrast of two has two effective responses a prompt, and is known."""
    steps, n_prompts = 12, 20
    drawn_at, prompt = np.repeat(np.arange(steps), n_prompts), np.tile(np.arange(n_prompts), steps)
    log_likelihood = np.where(np.arange(steps)[None, :] == drawn_at[:, None], -5.0, -500.0)
    contrast = likelihood_contrast(log_likelihood, drawn_at, prompt, np.array([2]), np.array([9]))
    assert contrast.ess == pytest.approx(np.full(n_prompts, 2.0))
    assert contrast.covered
    curve = transition_curve(log_likelihood, drawn_at, prompt, np.arange(steps), 1)
    assert curve.curve == pytest.approx(np.ones(steps - 1))


def test_the_average_over_prompts_sees_what_single_prompts_hide() -> None:
    """Mean weights of .8, within 4 errors of 1 in every prompt, are not covered when all of 20 prompts lie there."""
    ess, error = np.full((20, 1), 50.0), np.full((20, 1), 0.06)
    wobble = 0.02 * np.resize([-1.0, 1.0], (20, 1))
    assert covered(ess, 1 + wobble, error).all()
    assert not covered(ess, 0.8 + wobble, error).any()
    assert not covered(ess / 20, 1 + wobble, error).any()


def test_nothing_drawn_is_no_mixture() -> None:
    """A mixture needs responses."""
    with pytest.raises(SampleError, match="expected responses drawn at anchor checkpoints, found none"):
        Mixture.of(np.empty((0, 3)), np.empty(0, dtype=int), np.empty(0, dtype=int))


# ---- what is not scored


def test_of_banded_responses_those_scored_under_each_other_are_used() -> None:
    """Scored within 3 places of its own checkpoint, anchors form a mixture when all are scored under each other; near ones first."""
    drawn_at = np.repeat(np.arange(10), 4)
    log_likelihood = np.where(np.abs(np.arange(10)[None, :] - drawn_at[:, None]) <= 3, -1.0, np.nan)
    usable = usable_rows(log_likelihood, drawn_at, np.array([4, 5]))
    assert sorted(set(drawn_at[usable.rows])) == [3, 4, 5, 6]
    assert usable.n_unscored == 0
    log_likelihood[17, 5] = np.nan
    usable = usable_rows(log_likelihood, drawn_at, np.array([4, 5]))
    assert sorted(set(drawn_at[usable.rows])) == [3, 4, 5, 6]
    assert not usable.rows[17]
    assert usable.n_unscored == 1


def test_a_course_from_banded_scores_is_known_at_every_step(rng: np.random.Generator) -> None:
    """Every checkpoint sampled and scored nearby: each step has a mixture of its own, and the course is that of everything scored."""
    run = _run(rng)
    sample = draw(run, range(N_STEPS), 6, rng)
    label = sample.labels_of(run)[0].astype(float)
    near = np.abs(np.arange(N_STEPS)[None, :] - sample.drawn_at[:, None]) <= 5
    whole = course(step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt), label, np.arange(N_STEPS))
    banded = np.where(near, sample.log_likelihood, np.nan)
    found = course(step_weights(banded, sample.drawn_at, sample.prompt), label, np.arange(N_STEPS))
    assert np.isfinite(found.estimate).all()
    assert found.estimate == pytest.approx(whole.estimate, abs=0.1)


# ---- drawn by the law it is scored by


@pytest.mark.parametrize(("power", "off"), [(1.0, False), (1 / 0.7, True), (1 / 1.5, True)])
def test_a_sampler_of_another_temperature_is_caught_by_the_calibration(power: float, off: bool, rng: np.random.Generator) -> None:
    """Drawn from P^(1/T), T .7 or 1.5, and scored under P: the slope of the anchor posterior is off; at T 1 it is 1 within its error."""
    run = planted_run(rng, n_prompts=24, effects=[1.5], n_outcomes=80, course=logistic_course(N_STEPS, 14, 2))
    anchors = (0, 12, 16, 30)
    drawn = [run.table(a) ** power for a in anchors]
    tempered = [table / table.sum(axis=1, keepdims=True) for table in drawn]
    outcome = np.concatenate([rng.choice(80, 8, p=table[p]) for table in tempered for p in range(24)])
    prompt, drawn_at = np.tile(np.repeat(np.arange(24), 8), 4), np.repeat(anchors, 24 * 8)
    tables = np.stack([run.table(t) for t in range(N_STEPS)])
    found = anchor_calibration(np.log(tables[:, prompt, outcome].T), drawn_at, prompt)
    assert found.off is off
    if off:
        assert (found.slope > 1) is (power > 1)


def test_the_calibration_slope_is_normal_under_the_right_law(rng: np.random.Generator) -> None:
    """Over 200 draws slope minus 1 in standard errors has mean 0 and deviation 1; the surplus of every anchor too."""
    run = _run(rng)
    z, surplus = [], []
    for _ in range(200):
        sample = draw(run, [0, 12, 16, 30], 4, rng)
        found = anchor_calibration(sample.log_likelihood, sample.drawn_at, sample.prompt)
        z.append((found.slope - 1) / found.error)
        surplus.append(found.surplus)
    assert np.mean(z) == pytest.approx(0, abs=0.25)
    assert np.std(z) == pytest.approx(1, abs=0.2)
    assert np.abs(np.mean(surplus, axis=0)).max() < 0.25
    assert np.std(surplus, axis=0).max() < 1.2


def test_a_single_anchor_cannot_be_calibrated(rng: np.random.Generator) -> None:
    """With one anchor, or anchors that agree, there is no posterior to be wrong: no slope, and not off."""
    found = anchor_calibration(np.full((6, 3), -2.0), np.array([0, 0, 0, 2, 2, 2]), np.zeros(6, dtype=int))
    assert np.isnan(found.slope)
    assert not found.off


# ---- the bias of normalised weights


def _many_redraws(n_each: int, n_redraws: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Redraws of a prompt at three anchors, each a prompt of its own: what is averaged, prompts, weights, anchors, the exact mean."""
    rng = np.random.default_rng(4)
    tables = rng.dirichlet(np.full(30, 0.3), size=4)  # three anchors, then a law that none of them is
    tables[3] += tables[:3].mean(axis=0)
    tables[3] /= tables[3].sum()
    ratio = tables[3] / tables[:3].mean(axis=0)
    outcome = np.concatenate([rng.choice(30, (n_redraws, n_each), p=tables[a]) for a in range(3)], axis=1).ravel()
    prompt, anchor = np.repeat(np.arange(n_redraws), 3 * n_each), np.tile(np.repeat(np.arange(3), n_each), n_redraws)
    large = ratio > 1
    return large[outcome], prompt, normalised(np.log(ratio[outcome])[:, None], prompt), anchor, float(tables[3][large].sum())


@pytest.mark.parametrize("certain", [1.0, 0.7])
def test_means_under_corrected_weights_are_nearer_to_the_truth(certain: float) -> None:
    """Ten responses at each of three anchors, 3000 redraws: of what normalising costs on average a third is left at most.

    The same where anchors are told apart with a probability only.
    """
    value, prompt, weight, anchor, exact = _many_redraws(10)
    strata = certain * (anchor[:, None] == np.arange(3)) + (1 - certain) / 3
    plain, freed = (float(w[:, 0] @ value) / 3000 for w in (weight, without_ratio_bias(weight, prompt, strata)))
    assert plain < exact - 0.01
    assert abs(freed - exact) < (exact - plain) / 3


def test_equal_weights_need_no_correction_and_none_becomes_negative(rng: np.random.Generator) -> None:
    """Drawn in the windows themselves, weights stay what they are; any weights stay >= 0 and sum to 1 within prompt."""
    prompt, anchor = np.repeat(np.arange(5), 6), np.tile([0, 0, 0, 1, 1, 2], 5)
    posterior = rng.dirichlet(np.ones(3), size=30)
    strata = strata_of(anchor, posterior, prompt)
    assert strata == pytest.approx(posterior)  # the third anchor has one response
    equal = np.full((30, 1), 1 / 6)
    assert without_ratio_bias(equal, prompt, strata) == pytest.approx(equal, abs=1e-15)
    uneven = normalised(rng.normal(scale=20.0, size=(30, 4)), prompt)
    for parts in (strata, (anchor[:, None] == np.arange(3)).astype(float)):
        corrected = without_ratio_bias(uneven, prompt, parts)
        assert corrected.min() >= 0
        assert np.array([np.bincount(prompt, weights=w) for w in corrected.T]) == pytest.approx(np.ones((4, 5)), abs=1e-12)


def test_part_of_a_contrast_weighs_as_if_only_it_had_been_drawn(rng: np.random.Generator) -> None:
    """Responses, unevenly many at each anchor: weights and posterior are those of a contrast of these alone, taken at once or in turns."""
    run = _run(rng)
    sample = draw(run, [0, 14, 30], 6, rng)
    left, right = np.arange(8, 14), np.arange(14, 20)
    whole = likelihood_contrast(sample.log_likelihood, sample.drawn_at, sample.prompt, left, right)
    part = np.sort(rng.permutation(sample.prompt.size)[:120])
    rows = (sample.log_likelihood[part], sample.drawn_at[part], sample.prompt[part])
    anew, in_turns = likelihood_contrast(*rows, left, right), whole.take(np.union1d(part, [0, 1, 2])).take
    kept = np.flatnonzero(np.isin(np.union1d(part, [0, 1, 2]), part))
    for taken in (whole.take(part), in_turns(kept)):
        assert taken.weight == pytest.approx(anew.weight, rel=1e-9)
        assert taken.drawn is not None
        assert anew.drawn is not None
        assert taken.drawn.posterior == pytest.approx(anew.drawn.posterior, rel=1e-9)
