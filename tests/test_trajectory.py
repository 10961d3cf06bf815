from __future__ import annotations

import numpy as np
import pytest

from probes.mixture import MIN_ESS, Weights, weights_of
from probes.synthetic import PlantedRun, PlantedSample, draw, exact_course, logistic_course, planted_run, staggered_course
from probes.trajectory import Course, course, onset, step_weights

N_STEPS = 31
STEPS = 4 * np.arange(N_STEPS)
ANCHORS = [0, 10, 20, 30]


def _run(rng: np.random.Generator, mixture: np.ndarray, effect: float = 1.5, n_prompts: int = 12) -> PlantedRun:
    """A run along which the rate of a binary label rises from about .3."""
    run = planted_run(rng, n_prompts=n_prompts, effects=[effect], n_outcomes=80, course=mixture)
    return PlantedRun(run.before, run.after, (run.labels >= 3).astype(int), mixture)


def _course(run: PlantedRun, sample: PlantedSample) -> Course:
    weights = step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt)
    return course(weights, sample.labels_of(run)[0].astype(float), STEPS)


def _made(per_prompt: np.ndarray) -> Course:
    """A course with given expected levels `(n_prompts, n_steps)` and nothing unknown."""
    mean = per_prompt.mean(axis=0)
    return Course(np.arange(per_prompt.shape[1]), per_prompt, mean, mean, mean, np.full_like(per_prompt, 100), 0)


# ---- importance weights


def test_rate_along_a_run_from_four_anchors_is_right(rng: np.random.Generator) -> None:
    """From 12 prompts x 4 anchors x 25 responses the rate at every checkpoint lies within .03 of the exact course, and limits cover it."""
    run = _run(rng, logistic_course(N_STEPS, 14, 2))
    exact = exact_course(run, run.labels[0]).mean(axis=0)
    found = _course(run, draw(run, ANCHORS, 25, rng))
    assert np.abs(found.estimate - exact).max() < 0.03
    assert np.ptp(exact) > 0.2
    assert np.mean((found.low <= exact) & (exact <= found.high)) >= 0.9


def test_rates_centre_on_the_exact_course_over_redraws(rng: np.random.Generator) -> None:
    """Over 40 redraws the mean course lies on the exact one within 3 standard errors plus .003, at every checkpoint."""
    run = _run(rng, logistic_course(N_STEPS, 14, 2), n_prompts=6)
    exact = exact_course(run, run.labels[0]).mean(axis=0)
    found = np.array([_course(run, draw(run, ANCHORS, 10, rng)).estimate for _ in range(40)])
    assert (np.abs(found.mean(axis=0) - exact) < 3 * found.std(axis=0) / np.sqrt(40) + 0.003).all()


def test_a_sample_in_exact_proportion_gives_the_exact_course() -> None:
    """Weights are an identity: with every outcome drawn exactly n P_a times, expected levels are exact and mean weights 1."""
    tables = np.array([[8, 6, 4, 2], [5, 5, 5, 5], [2, 3, 6, 9]]) / 20
    outcome = np.concatenate([np.repeat(np.arange(4), np.rint(20 * tables[a]).astype(int)) for a in (0, 2)])
    level = np.array([0.0, 1.0, 1.0, 3.0])
    weights = step_weights(np.log(tables[:, outcome].T), np.repeat([0, 2], 20), np.zeros(40, dtype=int))
    found = course(weights, level[outcome], np.arange(3))
    assert found.per_prompt[0] == pytest.approx(tables @ level, abs=1e-12)
    assert weights.raw.mean(axis=0) == pytest.approx([1, 1, 1], abs=1e-12)
    assert not weights.failed.any()
    assert weights.ess[0] == pytest.approx(weights.raw.sum(axis=0) ** 2 / (weights.raw**2).sum(axis=0))


def test_weight_check_fails_when_an_anchor_is_missing(rng: np.random.Generator) -> None:
    """Where the end of the run has answers that the anchors never give, the check fails there in nearly every prompt, and nowhere else."""
    before, after = (rng.dirichlet(np.ones(40), size=12) for _ in range(2))
    gap = np.repeat([[1e-9, 1.0]], 20, axis=1)
    before, after = before * gap[:, ::-1], after * gap
    tables = [x / x.sum(axis=1, keepdims=True) for x in (before, after)]
    run = PlantedRun(tables[0], tables[1], np.arange(40)[None, None, :].repeat(12, axis=1) % 2, logistic_course(N_STEPS, 14, 2))
    covered, missing = (draw(run, anchors, 60 // len(anchors), rng) for anchors in (ANCHORS, [0]))
    assert step_weights(covered.log_likelihood, covered.drawn_at, covered.prompt).failed.mean() < 0.01
    failed = step_weights(missing.log_likelihood, missing.drawn_at, missing.prompt).failed
    assert failed[:, -5:].mean() > 0.8
    assert not failed[:, :5].any()
    found = _course(run, missing)
    assert np.isnan(found.estimate[-5:]).all()
    assert np.isfinite(found.estimate[:5]).all()
    assert found.n_failed_checks == failed.sum()


def test_weight_check_fails_when_the_sampler_had_another_temperature(rng: np.random.Generator) -> None:
    """Responses drawn at temperature 1/2 and scored at 1 fail away from their own checkpoint where training flattened the answers."""
    sharp = rng.dirichlet(np.full(30, 0.5), size=12) + 1e-4
    start, end = (x / x.sum(axis=1, keepdims=True) for x in (sharp, np.sqrt(sharp)))
    run = PlantedRun(start, end, np.zeros((1, 12, 30), dtype=int), np.linspace(0, 1, N_STEPS))
    colder = start**2 / (start**2).sum(axis=1, keepdims=True)
    cold = draw(PlantedRun(colder, end, run.labels, run.course), [0], 120, rng)
    scored = np.log(np.stack([run.table(t)[cold.prompt, cold.outcome] for t in range(N_STEPS)], axis=1))
    right = draw(run, [0], 120, rng)
    assert step_weights(right.log_likelihood, right.drawn_at, right.prompt).failed.mean() < 0.05
    assert step_weights(scored, cold.drawn_at, cold.prompt).failed[:, 10:].mean() > 0.8


def _weights(per_prompt: dict[tuple[int, int], list[float]], n_prompts: int, n_steps: int) -> Weights:
    """Six weights for every (prompt, step): ones unless given."""
    raw = np.ones((n_prompts, 6, n_steps))
    for (p, t), values in per_prompt.items():
        raw[p, :, t] = values
    with np.errstate(divide="ignore"):
        return weights_of(np.log(raw.reshape(-1, n_steps)), np.repeat(np.arange(n_prompts), 6), n_prompts)


def test_steps_that_are_not_known_stay_unknown() -> None:
    """A step at which the effective size of the worst prompts is below the floor is unknown in every prompt, the others in none."""
    one, three = [6.0, 0, 0, 0, 0, 0], [2.0, 2, 2, 0, 0, 0]
    weights = _weights({(p, 2): one for p in range(3)} | {(p, 1): three for p in range(2)}, 8, 6)
    found = course(weights, np.tile([0.0, 1.0], 24), np.arange(6))
    assert MIN_ESS == 4
    assert weights.ess[0, :3] == pytest.approx([6, 3, 1])
    assert np.isfinite(found.estimate).tolist() == [True, False, False, True, True, True]
    assert np.isfinite(found.per_prompt).all(axis=0).tolist() == np.isfinite(found.estimate).tolist()
    assert found.estimate[0] == pytest.approx(0.5)
    assert found.n_prompts_left_out == 0


def test_the_mix_of_prompts_is_the_same_at_every_step() -> None:
    """A prompt unknown at most steps is left out everywhere: a course of prompts that do not move does not move."""
    one = [6.0, 0, 0, 0, 0, 0]
    level = np.repeat(np.arange(8.0), 6)  # every prompt has a level of its own, at every step
    found = course(_weights({(p, t): one for p in (6, 7) for t in range(4)}, 8, 6), level, np.arange(6))
    assert found.n_prompts_left_out == 2
    assert np.isnan(found.per_prompt[6:]).all()
    assert found.estimate == pytest.approx(np.full(6, 2.5))


def test_missing_judgements_are_left_out_of_the_course(rng: np.random.Generator) -> None:
    """NaN levels carry no weight; a prompt without any level is unknown; nothing at all known gives a course of NaN, without a warning."""
    run = _run(rng, logistic_course(N_STEPS, 14, 2))
    sample = draw(run, ANCHORS, 10, rng)
    weights = step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt)
    level = np.ones(sample.prompt.size)
    level[::3] = np.nan
    level[sample.prompt == 5] = np.nan
    found = course(weights, level, STEPS)
    assert found.estimate == pytest.approx(np.ones(N_STEPS))
    assert np.isnan(found.per_prompt[5]).all()
    empty = course(weights, np.full_like(level, np.nan), STEPS)
    assert np.isnan(empty.estimate).all()
    assert onset(empty) is None


# ---- onset


def test_onset_of_a_planted_logistic_course_is_recovered() -> None:
    """Exact courses with midpoint 30 and width 3: t50 at 30 and t10, t90 at 30 -+ 3 log 9, within a fifth of a step."""
    midpoint, width = 30.0, 3.0
    shapes = np.outer(np.linspace(0.5, 1.0, 8), logistic_course(61, midpoint, width))
    found = onset(_made(0.2 + shapes))
    assert found is not None
    assert found.t50.estimate == pytest.approx(midpoint, abs=0.2)
    assert found.t10.estimate == pytest.approx(midpoint - width * np.log(9), abs=0.2)
    assert found.t90.estimate == pytest.approx(midpoint + width * np.log(9), abs=0.2)
    assert found.shift.estimate == pytest.approx(0.75, abs=0.01)
    assert found.places.shape == (8,)


def test_a_falling_label_has_the_onset_of_its_mirror_image() -> None:
    """Falling is as good as rising: the same steps, the opposite shift."""
    rng = np.random.default_rng(3)
    shapes = np.outer(rng.uniform(0.5, 1, 8), logistic_course(61, 22, 3)) + 0.01 * rng.standard_normal((8, 61))
    up, down = onset(_made(shapes)), onset(_made(1 - shapes))
    assert up is not None
    assert down is not None
    assert down.t50.estimate == pytest.approx(up.t50.estimate)
    assert down.t90.high == pytest.approx(up.t90.high)
    assert down.shift.estimate == pytest.approx(-up.shift.estimate)


def test_onset_from_drawn_responses_covers_the_true_step(rng: np.random.Generator) -> None:
    """Prompts change at steps of their own: over 40 runs the onset centres on the exact one within 1.5 steps, and 36 intervals cover."""
    errors, covered = [], []
    for _ in range(40):
        run = _run(rng, staggered_course(N_STEPS, rng.normal(14, 1.5, 12), 1.5), effect=2.5)
        found = onset(_course(run, draw(run, ANCHORS, 12, rng)))
        assert found is not None
        errors.append(found.t50.estimate - 4 * 14)
        covered.append(found.t50.low <= 4 * 14 <= found.t50.high)
    assert np.mean(errors) == pytest.approx(0.0, abs=1.5)
    assert np.sum(covered) >= 36


def test_of_several_crossings_the_one_nearest_the_peak_of_the_change_counts() -> None:
    """A course that goes up, back and up again crosses half-way twice; `near` chooses, and without it the first counts."""
    rng = np.random.default_rng(0)
    shape = logistic_course(80, 15, 1) - logistic_course(80, 35, 1) + logistic_course(80, 60, 1)
    found = _made(np.outer(rng.uniform(0.8, 1.2, 8), shape))
    for near, expected in ((None, 15), (10.0, 15), (70.0, 60), (45.0, 60)):
        chosen = onset(found, near=near)
        assert chosen is not None
        assert chosen.t50.estimate == pytest.approx(expected, abs=0.5)
        assert chosen.t10.estimate < chosen.t50.estimate < chosen.t90.estimate


def test_no_change_has_no_onset(rng: np.random.Generator) -> None:
    """Courses that end where they began, up to noise, have no onset in at least 34 of 40 draws (level .05, 2 SE); exact ties have none."""
    none = [onset(_made(0.5 + 0.1 * rng.standard_normal((8, 40)))) is None for _ in range(40)]
    assert np.sum(none) >= 34
    assert onset(_made(np.full((8, 40), 0.5))) is None


@pytest.mark.parametrize("n_prompts", [1, 2, 5])
def test_few_prompts_have_an_onset_only_with_an_interval(n_prompts: int, rng: np.random.Generator) -> None:
    """A single prompt cannot tell change from noise: None, without a warning. With two prompts that agree there is an onset."""
    shapes = np.outer(np.linspace(0.99, 1.0, n_prompts), logistic_course(61, 30, 3))
    assert (onset(_made(shapes)) is None) is (n_prompts == 1)


def test_unknown_ends_have_no_onset_and_unknown_steps_between_do_not_matter(rng: np.random.Generator) -> None:
    """An onset needs both ends; steps and prompts unknown in between are stepped over, not filled in."""
    shapes = np.outer(np.linspace(0.8, 1.0, 8), logistic_course(61, 30, 3))
    whole = onset(_made(shapes))
    assert whole is not None
    gap = shapes.copy()
    gap[:, 10:14] = np.nan
    for columns, known in (([0], False), ([60], False), ([10, 11, 12, 13], True)):
        with_gap = shapes.copy()
        with_gap[:, columns] = np.nan
        estimate = np.where(np.isin(np.arange(61), columns), np.nan, shapes.mean(axis=0))
        made = _made(shapes)
        found = onset(Course(made.steps, with_gap, estimate, estimate, estimate, made.ess, 0))
        assert (found is not None) is known
        if found is not None:
            assert found.t50.estimate == pytest.approx(whole.t50.estimate, abs=1e-9)


def test_a_step_known_in_one_of_two_prompts_is_no_trouble() -> None:
    """Leaving out the only prompt that is known at a step leaves that step unknown: no warning and finite estimates."""
    shapes = np.outer([0.99, 1.0], logistic_course(61, 30, 3))
    shapes[0, 20] = np.nan
    made = _made(shapes)
    estimate = np.nanmean(shapes, axis=0)
    found = onset(Course(made.steps, shapes, estimate, estimate, estimate, made.ess, 0))
    assert found is not None
    assert np.isfinite(found.t50.estimate)


def test_thousands_of_nats_leave_the_course_as_it_is(rng: np.random.Generator) -> None:
    """Only differences between checkpoints count, and a response impossible at a step has weight 0 there."""
    run = _run(rng, logistic_course(N_STEPS, 14, 2), n_prompts=6)
    sample = draw(run, ANCHORS, 10, rng)
    near = step_weights(sample.log_likelihood, sample.drawn_at, sample.prompt)
    far = step_weights(sample.log_likelihood - 30_000, sample.drawn_at, sample.prompt)
    assert far.raw == pytest.approx(near.raw, rel=1e-6)
    impossible = sample.log_likelihood.copy()
    impossible[0, 1:] -= 5000
    assert step_weights(impossible, sample.drawn_at, sample.prompt).raw[0, 1:].max() == 0.0
