from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from probes.dissimilarity import dissimilarity, total_change
from probes.explained_share import explained
from probes.resampling import Interval
from probes.synthetic import (
    PlantedRun,
    contrast_of,
    draw,
    exact_change,
    exact_course,
    exact_curve,
    exact_shares,
    logistic_course,
    planted_run,
    planted_with_length,
    reading_matrix,
    staggered_course,
)

# ---- the tables


def test_tables_are_probabilities_with_the_planted_labels(rng: np.random.Generator) -> None:
    """Rows sum to 1 at every checkpoint, all levels occur, and the ends of the course are the two tables."""
    run = planted_run(rng, n_prompts=5, effects=[1.0, 0.0], n_levels=4, course=logistic_course(9, 4, 0.1))
    assert run.labels.shape == (2, 5, 400)
    assert np.unique(run.labels).tolist() == [0, 1, 2, 3]
    for t in range(9):
        table = run.table(t)
        assert table.sum(axis=1) == pytest.approx(np.ones(5))
        assert (table > 0).all()
    assert run.table(0) == pytest.approx(run.before)
    assert run.table(8) == pytest.approx(run.after)
    assert run.mixture([0, 8]) == pytest.approx((run.before + run.after) / 2)


def test_responses_are_drawn_from_the_tables_and_scored_under_them(rng: np.random.Generator) -> None:
    """Frequencies of 4000 draws agree with the table within 4 standard errors; likelihoods are its logarithms at every checkpoint."""
    run = planted_run(rng, n_prompts=2, effects=[1.0], n_outcomes=12, course=np.array([0.0, 0.4, 1.0]))
    sample = draw(run, [0, 2], 4000, rng)
    for p in range(2):
        for t in (0, 2):
            rows = (sample.prompt == p) & (sample.drawn_at == t)
            assert rows.sum() == 4000
            expected = run.table(t)[p]
            observed = np.bincount(sample.outcome[rows], minlength=12) / 4000
            assert (np.abs(observed - expected) < 4 * np.sqrt(expected / 4000)).all()
    assert np.exp(sample.log_likelihood[:, 1]) == pytest.approx(run.table(1)[sample.prompt, sample.outcome])
    assert (sample.labels_of(run)[0] == run.labels[0, sample.prompt, sample.outcome]).all()


def test_effects_correlation_and_heterogeneity_are_what_was_asked_for(rng: np.random.Generator) -> None:
    """A distractor shows next to nothing, a larger effect more; correlated labels are correlated; the same seed plants the same run."""
    run = planted_run(rng, n_prompts=30, effects=[0.0, 0.4, 0.9], correlation=0.6)
    shown = [exact_change(run, [0], [1], run.labels[[k]]) for k in range(3)]
    assert shown[0] < shown[1] < shown[2]
    apart = planted_run(rng, n_prompts=30, effects=[0.0, 0.9])
    assert exact_change(apart, [0], [1], apart.labels[[0]]) < 0.003
    assert np.corrcoef(run.labels[0].ravel(), run.labels[1].ravel())[0, 1] == pytest.approx(0.55, abs=0.08)
    assert np.corrcoef(apart.labels[0].ravel(), apart.labels[1].ravel())[0, 1] == pytest.approx(0.0, abs=0.05)
    first, again = (planted_run(np.random.default_rng(4), n_prompts=3, effects=[1.0]) for _ in range(2))
    assert (first.after == again.after).all()


def test_length_moves_and_goes_with_the_labels_as_asked(rng: np.random.Generator) -> None:
    """Length correlates with a label as asked, moves when it has an effect of its own, and `affected` leaves the other answers alone."""
    run, length = planted_with_length(rng, n_prompts=20, effects=[0.0], length_effect=1.0, length_correlation=0.7)
    assert np.corrcoef(length.ravel(), run.labels[0].ravel())[0, 1] == pytest.approx(0.66, abs=0.06)
    assert np.sum(run.after * length) - np.sum(run.before * length) > 10
    few, _ = planted_with_length(rng, n_prompts=20, effects=[2.0], affected=0.05)
    all_, _ = planted_with_length(rng, n_prompts=20, effects=[2.0], affected=1.0)
    assert exact_change(few, [0], [1]) < 0.1 * exact_change(all_, [0], [1])
    assert few.after.sum(axis=1) == pytest.approx(np.ones(20))


# ---- exact values


def test_exact_change_is_the_dissimilarity_of_the_tables_and_of_a_labels_histograms(rng: np.random.Generator) -> None:
    """D is that of the tables; with one prompt D[O] is that of the level histograms, to 1e-12 (the correlation-ratio identity)."""
    run = planted_run(rng, n_prompts=6, effects=[1.0, 0.5])
    assert exact_change(run, [0], [1]) == pytest.approx(float(dissimilarity(run.before, run.after).mean()), abs=1e-12)
    one = run.at_prompts(np.array([2]))
    p, q = (np.bincount(one.labels[0, 0], weights=table[0], minlength=5) for table in (one.before, one.after))
    assert exact_change(one, [0], [1], one.labels[[0]]) == pytest.approx(float(dissimilarity(p, q)), abs=1e-12)
    names = np.arange(400)[None, None, :]
    assert exact_change(one, [0], [1], names) == pytest.approx(exact_change(one, [0], [1]), abs=1e-9)


def test_more_labels_show_more_and_never_all(rng: np.random.Generator) -> None:
    """Data processing along sets: every label added raises D[O], and no set reaches D."""
    run = planted_run(rng, n_prompts=8, effects=[0.8, 0.4, 0.2], correlation=0.3)
    total = exact_change(run, [0], [1])
    shown = {s: exact_change(run, [0], [1], run.labels[list(s)]) for size in (1, 2, 3) for s in combinations(range(3), size)}
    for subset, value in shown.items():
        assert value < total
        for smaller in combinations(subset, len(subset) - 1):
            assert not smaller or shown[smaller] <= value + 1e-12


def test_exact_shares_of_labels_read_with_error(rng: np.random.Generator) -> None:
    """Read without error, they equal the exact change of every set; read by chance, nothing; two noisy readings say more than one."""
    run = planted_run(rng, n_prompts=4, effects=[1.0, 0.5], correlation=0.3, n_outcomes=100)
    right, chance, noisy = reading_matrix(5, 1.0), reading_matrix(5, 0.0), reading_matrix(5, 0.7, missing=0.1)
    perfect = exact_shares(run, [0], [1], run.labels, [right, right])
    for labels in ([0], [1], [0, 1]):
        assert perfect.change(labels) == pytest.approx(exact_change(run, [0], [1], run.labels[labels]), abs=1e-9)
    assert perfect.change([]) == 0.0
    assert perfect.total == pytest.approx(exact_change(run, [0], [1]))
    twice = exact_shares(run, [0], [1], run.labels[[0, 0, 0]], [chance, noisy, noisy])
    assert twice.change([0]) == pytest.approx(0.0, abs=1e-9)
    assert 0 < twice.change([1]) < twice.change([1, 2]) < perfect.change([0])
    assert noisy.sum(axis=1) == pytest.approx(np.ones(5))


def test_exact_curve_and_course_follow_the_mixture(rng: np.random.Generator) -> None:
    """The curve peaks at the midpoint of a logistic course, each prompt at its own, and levels interpolate between the ends."""
    run = planted_run(rng, n_prompts=3, effects=[1.0], course=staggered_course(41, np.array([10.0, 20.0, 30.0]), 2.0))
    curve, level = exact_curve(run, 2), exact_course(run, run.labels[0])
    assert curve.shape == (3, 38)
    assert np.argmax(curve, axis=1) + 2 == pytest.approx([10, 20, 30], abs=2)
    assert curve[1, 18] == pytest.approx(exact_change(run.at_prompts(np.array([1])), [18, 19], [20, 21]))
    assert level.shape == (3, 41)
    assert (np.diff(level, axis=1) > 0).all()
    halfway = (level[:, 0] + level[:, -1]) / 2
    assert [np.interp(halfway[p], level[p], np.arange(41)) for p in range(3)] == pytest.approx([10, 20, 30], abs=0.5)


# ---- redraws of one planted run: estimates centre on the exact values (METHOD 7)

N_REDRAWS = 40


def _estimates(run: PlantedRun, n_each: int, likelihoods: bool, rng: np.random.Generator) -> dict[str, float]:
    sample = draw(run, [0, 1], n_each, rng)
    contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
    labels = list(sample.labels_of(run))
    joint, others = explained(contrast, labels), explained(contrast, labels[1:])
    alone, nothing = explained(contrast, labels[:1]), explained(contrast, labels[2:])
    values = {"single": alone.change, "joint": joint.change, "unique": joint.minus(others).change, "nothing": nothing.change}
    if likelihoods:
        values["total"] = total_change(contrast).estimate
        values["share"] = joint.share_interval.estimate
    return values


@pytest.mark.parametrize("likelihoods", [True, False])
@pytest.mark.parametrize(("n_prompts", "n_each"), [(12, 6), (8, 3), (40, 1)])
def test_estimates_centre_on_the_exact_values(n_prompts: int, n_each: int, likelihoods: bool) -> None:
    """Single, joint and unique parts, a distractor, D and the joint share: 40 redraws average to the exact value (3 SE plus .005)."""
    rng = np.random.default_rng([n_prompts, n_each])
    run = planted_run(rng, n_prompts=n_prompts, effects=[1.0, 0.5, 0.0], correlation=0.3, n_outcomes=100)
    value = {s: exact_change(run, [0], [1], run.labels[list(s)]) for size in (1, 2, 3) for s in combinations(range(3), size)}
    total = exact_change(run, [0], [1])
    exact = {
        "single": value[(0,)],
        "joint": value[(0, 1, 2)],
        "unique": value[(0, 1, 2)] - value[(1, 2)],
        "nothing": value[(2,)],
        "total": total,
        "share": value[(0, 1, 2)] / total,
    }
    redraws = [_estimates(run, n_each, likelihoods, rng) for _ in range(N_REDRAWS)]
    for name in redraws[0]:
        found = np.array([redraw[name] for redraw in redraws])
        error = 3 * float(found.std()) / np.sqrt(N_REDRAWS) + 0.005
        assert found.mean() == pytest.approx(exact[name], abs=error), name


@pytest.mark.slow
@pytest.mark.parametrize("likelihoods", [True, False])
def test_intervals_cover_the_population(likelihoods: bool) -> None:
    """Prompts drawn from 300: 95% intervals of single and unique D[O] cover in at least 89% of 120 runs (3 SE below .95)."""
    rng = np.random.default_rng(11)
    run = planted_run(rng, n_prompts=300, effects=[0.9, 0.4], correlation=0.3, n_outcomes=60)
    exact = exact_change(run, [0], [1], run.labels[[0]]), exact_change(run, [0], [1], run.labels)
    truth = exact[0], exact[1] - exact_change(run, [0], [1], run.labels[[1]])
    covered = []
    for _ in range(120):
        part = run.at_prompts(rng.choice(300, 12, replace=False))
        sample = draw(part, [0, 1], 6, rng)
        contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
        labels = list(sample.labels_of(part))
        single = explained(contrast, labels[:1])
        unique = explained(contrast, labels).minus(explained(contrast, labels[1:]))
        covered.append([_covers(single.change_interval, truth[0]), _covers(unique.change_interval, truth[1])])
    assert (np.mean(covered, axis=0) >= 0.89).all()


def _covers(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high
