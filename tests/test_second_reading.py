from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from probes.errors import ShapeError
from probes.explained_share import explained
from probes.second_reading import beyond_second_reading
from probes.synthetic import contrast_of, draw, exact_change, planted_run

KAPPA = 0.7


def _read(label: np.ndarray, rng: np.random.Generator, kappa: float = KAPPA) -> np.ndarray:
    return np.where(rng.random(label.shape) < kappa, label, rng.integers(0, 5, label.shape))


def _tests(
    n_runs: int, effects: Sequence[float], *, correlation: float = 0.0, likelihoods: bool = True, missing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """p-values and gains `(n_runs, 3)` beyond the first parameter of: a third reading of it, the second parameter, the last one."""
    p_values, gains = [], []
    for seed in range(n_runs):
        rng = np.random.default_rng([17, seed])
        run = planted_run(rng, n_prompts=20, effects=effects, correlation=correlation, n_outcomes=800, hidden=0.3)
        sample = draw(run, [0, 1], 10, rng)
        contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
        true = sample.labels_of(run)
        labels = [_read(true[k], rng) for k in (0, 0, 0, 1, -1)]
        labels = [np.where(rng.random(label.shape) < missing, -1, label) for label in labels]
        beyond = [beyond_second_reading(contrast, labels[:1], labels[1:2], label) for label in labels[2:]]
        p_values.append([b.p_value for b in beyond])
        gains.append([b.gain for b in beyond])
    return np.array(p_values), np.array(gains)


@pytest.mark.slow
@pytest.mark.parametrize(("likelihoods", "missing"), [(True, 0.0), (False, 0.0), (True, 0.05)])
def test_a_paraphrase_adds_nothing_beyond_two_readings(likelihoods: bool, missing: float) -> None:
    """Small p-values of a third reading are no more frequent than the level (60 runs; .05 + 2 SE), and its gain centres on 0."""
    p_values, gains = _tests(60, (0.9, 0.3), likelihoods=likelihoods, missing=missing)
    assert np.mean(p_values[:, 0] < 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
    assert abs(np.median(gains[:, 0])) < (0.005 if likelihoods else 0.01)


def test_a_correlate_without_effect_adds_nothing_although_it_gains_beyond_one_reading() -> None:
    """A label that goes with the accepted one and has no effect of its own is refused; beyond a single reading it would gain."""
    p_values, gains = _tests(60, (0.9, 0.0), correlation=0.6)
    assert np.mean(p_values[:, 2] < 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)
    assert abs(np.mean(gains[:, 2])) < 0.002


def test_another_parameter_is_seen_beside_a_large_one_read_with_error() -> None:
    """A parameter a tenth of the accepted one's size, smaller than what rereading that one gains, is found most of the time."""
    p_values, gains = _tests(40, (0.9, 0.35))
    assert np.mean(p_values[:, 1] < 0.05) > 0.85
    rng = np.random.default_rng(0)
    run = planted_run(rng, n_prompts=200, effects=(0.9, 0.35, 0.0), n_outcomes=400, hidden=0.3)
    read = _read(run.labels[1], rng)
    beyond = exact_change(run, [0], [1], np.stack([run.labels[0], read])) - exact_change(run, [0], [1], run.labels[:1])
    assert np.mean(gains[:, 1]) == pytest.approx(beyond, rel=0.3)


def test_exact_labels_are_plainly_conditioned_on(rng: np.random.Generator) -> None:
    """Where both readings are the same, the gain is that of the ordinary regression."""
    run = planted_run(rng, n_prompts=20, effects=(0.9, 0.6), n_outcomes=800)
    sample = draw(run, [0, 1], 20, rng)
    contrast = contrast_of(sample, [0], [1], likelihoods=True)
    a, b = sample.labels_of(run)
    gain = explained(contrast, [a, b]).minus(explained(contrast, [a])).change
    assert beyond_second_reading(contrast, [a], [a], b).gain == pytest.approx(gain, rel=0.05)
    assert beyond_second_reading(contrast, [a], [a], a).p_value == 1.0
    assert beyond_second_reading(contrast, [], [], b).p_value < 1e-6


def test_readings_that_do_not_agree_at_all_are_survived(rng: np.random.Generator) -> None:
    """A judge that guesses gives finite numbers, and so do a label with one level and more columns than responses."""
    run = planted_run(rng, n_prompts=6, effects=(0.9, 0.6), n_outcomes=300)
    contrast = contrast_of(sample := draw(run, [0, 1], 3, rng), [0], [1], likelihoods=True)
    _, b = sample.labels_of(run)
    guesses = [rng.integers(0, 5, b.size) for _ in range(12)]
    for first, second in ((guesses[:1], guesses[1:2]), (guesses[:6], guesses[6:])):
        beyond = beyond_second_reading(contrast, first, second, b)
        assert np.isfinite([beyond.gain, beyond.p_value]).all()
    assert beyond_second_reading(contrast, guesses[:1], guesses[1:2], np.zeros(b.size, dtype=int)).p_value == 1.0


def test_every_label_needs_a_second_reading(rng: np.random.Generator) -> None:
    """One second reading too few is an error, not a shorter list."""
    run = planted_run(rng, n_prompts=6, effects=(0.9,), n_outcomes=300)
    contrast = contrast_of(sample := draw(run, [0, 1], 3, rng), [0], [1], likelihoods=True)
    label = sample.labels_of(run)[0]
    with pytest.raises(ShapeError, match="expected one for each of 1 labels, found 0"):
        beyond_second_reading(contrast, [label], [], label)
