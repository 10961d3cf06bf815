from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from probes.gradients import grad_norm_peak

STEPS = np.arange(1, 401)


def _decay(rng: np.random.Generator, noise: float = 0.05) -> np.ndarray:
    """The usual gradient norm: it falls from the first step on, with noise in proportion."""
    return np.asarray((1 + 4 * np.exp(-STEPS / 30)) * np.exp(noise * rng.standard_normal(STEPS.size)))


def _bump(at: float, height: float, width: float = 15.0) -> np.ndarray:
    return np.asarray(height * np.exp(-((STEPS - at) ** 2) / (2 * width**2)))


@pytest.mark.slow
def test_a_planted_peak_is_found_at_its_step(rng: np.random.Generator) -> None:
    """A bump on the decay is found within 8 steps in each of 10 draws, and the interval of its place covers it in 8 at least."""
    errors, covered = [], []
    for _ in range(10):
        found = grad_norm_peak(STEPS, _decay(rng) + _bump(200, 1.0), rng)
        assert found is not None
        errors.append(found.step - 200)
        covered.append(found.low - 2 <= 200 <= found.high + 2)
        assert found.low <= found.step <= found.high
        assert found.prominence == pytest.approx(1.0, abs=0.25)
        assert 0 < found.noise < 0.05
    assert np.abs(errors).max() <= 8
    assert np.sum(covered) >= 8


@pytest.mark.parametrize("shape", ["falling", "rising", "constant", "valley"])
def test_a_falling_start_or_a_rising_end_is_no_peak(shape: str, rng: np.random.Generator) -> None:
    """A peak must come down on both sides: decay, growth, a constant and a valley have none."""
    noise = np.exp(0.02 * rng.standard_normal(STEPS.size))
    norm = {
        "falling": (1 + 4 * np.exp(-STEPS / 60)) * noise,
        "rising": (1 + STEPS / 200) * noise,
        "constant": np.full(STEPS.size, 0.7),
        "valley": (1 + np.abs(STEPS - 200) / 100) * noise,
    }[shape]
    assert grad_norm_peak(STEPS, norm, rng) is None


def test_noise_alone_seldom_has_a_peak() -> None:
    """Noise around a constant shows a peak in at most 4 of 25 draws; the same noise with a bump shows it in each of 5."""
    alone = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        noise = np.exp(0.1 * rng.standard_normal(STEPS.size))
        alone.append(grad_norm_peak(STEPS, noise, rng) is not None)
        if seed < 5:
            found = grad_norm_peak(STEPS, noise + _bump(150, 0.6), rng)
            assert found is not None
            assert found.step == pytest.approx(150, abs=12)
    assert np.sum(alone) <= 4


@pytest.mark.parametrize("length", [1, 2, 3])
def test_spikes_at_epoch_boundaries_are_ignored(length: int, rng: np.random.Generator) -> None:
    """One to three steps of tenfold norm, as where an epoch begins or a batch is bad, are no peak and do not move the real one."""
    spiked = _decay(rng)
    for start in (100, 300):
        spiked[start : start + length] *= 10
    assert grad_norm_peak(STEPS, spiked, rng) is None
    real = grad_norm_peak(STEPS, spiked + _bump(200, 1.0), rng)
    assert real is not None
    assert real.step == pytest.approx(200, abs=8)


def test_missing_norms_are_left_out_and_counted(rng: np.random.Generator) -> None:
    """NaN and infinite norms do not count, wherever they are; the peak stays and their number is given."""
    norm = _decay(rng) + _bump(200, 1.0)
    norm[rng.choice(STEPS.size, 80, replace=False)] = np.nan
    norm[200] = np.inf
    found = grad_norm_peak(STEPS, norm, rng)
    assert found is not None
    assert found.n_missing == np.sum(~np.isfinite(norm))
    assert found.step == pytest.approx(200, abs=8)
    assert grad_norm_peak(STEPS, np.full(400, np.nan), rng) is None


@pytest.mark.parametrize("n", [0, 1, 4, 5, 6])
def test_a_few_steps_have_no_peak(n: int, rng: np.random.Generator) -> None:
    """Too few steps to come up and down again: None, not an error."""
    assert grad_norm_peak(np.arange(n), np.ones(n), rng) is None
    assert grad_norm_peak(np.arange(n), np.linspace(2, 1, n), rng) is None


def test_steps_and_units_of_the_norm_do_not_matter(rng: np.random.Generator) -> None:
    """Logging every tenth step moves the peak's step tenfold; a norm a million times larger has the same peak."""
    norm = _decay(rng) + _bump(200, 1.0)
    one = grad_norm_peak(STEPS, norm, np.random.default_rng(0))
    ten = grad_norm_peak(10 * STEPS, 1e6 * norm, np.random.default_rng(0))
    assert one is not None
    assert ten is not None
    assert (ten.step, ten.low, ten.high) == (10 * one.step, 10 * one.low, 10 * one.high)
    assert ten.prominence == pytest.approx(1e6 * one.prominence)


def _logged(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([int(row["step"]) for row in rows]), np.array([float(row["grad_norm"] or "nan") for row in rows])


@pytest.mark.slow
def test_epoch_boundaries_of_real_runs_are_no_peaks(opd_data: Path, rng: np.random.Generator) -> None:
    """In a real log of 2115 steps with a missing norm, the boundaries 705 and 1410 and the first steps are not taken for a peak."""
    for path in sorted((opd_data / "trainlogs_gradnorm").glob("*.csv")):
        steps, norm = _logged(path)
        found = grad_norm_peak(steps, norm, rng)
        if found is not None:
            assert min(abs(found.step - boundary) for boundary in (0, 705, 1410)) > 50
    steps, norm = _logged(opd_data / "trainlogs_gradnorm" / "qwen0.5b_badmedical_trainer_state.csv")
    assert np.isnan(norm).sum() == 1
    planted = grad_norm_peak(steps, norm + 1.5 * np.exp(-((steps - 1000) ** 2) / (2 * 60.0**2)), rng)
    assert planted is not None
    assert planted.step == pytest.approx(1000, abs=40)
    assert planted.n_missing == 1
