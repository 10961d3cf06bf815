from __future__ import annotations

import numpy as np
import pytest

from probes.agreement import agreement
from probes.dissimilarity import side_contrast
from probes.errors import SampleError, ShapeError
from probes.reliability import LEAST_BOTH, krippendorff_alpha, noise_free_share, second_reading
from probes.synthetic import PlantedRun, contrast_of, draw, planted_run

N_LEVELS = 5


def noisy(level: np.ndarray, kappa: float, rng: np.random.Generator, missing: float = 0.0) -> np.ndarray:
    """A reading that is right with probability kappa, else any level, and missing with its own probability."""
    read = np.where(rng.random(level.size) < kappa, level, rng.integers(0, N_LEVELS, level.size))
    return np.where(rng.random(level.size) < missing, -1, read)


def exact_numeric_change(run: PlantedRun) -> tuple[float, float]:
    """(D, D explained by the first label on its numeric scale), both exact: cov(s, a)^2 / var(a)."""
    p, q, a = run.before, run.after, run.labels[0].astype(float)
    m, s = (p + q) / 2, (p - q) / (p + q)
    a = a - (m * a).sum(axis=1, keepdims=True)
    together, spread = float((m * s * a).sum(axis=1).mean()), float((m * a * a).sum(axis=1).mean())
    return float((m * s * s).sum(axis=1).mean()), together**2 / spread


@pytest.mark.slow
@pytest.mark.parametrize("likelihoods", [True, False])
@pytest.mark.parametrize(("n_prompts", "n_each"), [(20, 10), (40, 3)])
def test_two_noisy_readings_show_the_share_of_one_without_error(likelihoods: bool, n_prompts: int, n_each: int) -> None:
    """Over redraws the estimate centres on the exact share of the true label; one reading alone shows about kappa squared of it.

    The interval covers it as often as it says, a little less without likelihoods at 40 prompts x 3 (simulated with 500 redraws: .95-.98 and
    .91-.95).
    """
    rng = np.random.default_rng(3)
    run = planted_run(rng, n_prompts=n_prompts, effects=[0.6], course=np.array([0.0, 1.0]))
    total, part = exact_numeric_change(run)
    exact = part / total if likelihoods else part
    found, covered, once = [], [], []
    for _ in range(200):
        sample = draw(run, [0, 1], n_each, rng)
        contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
        true = sample.labels_of(run)[0][contrast.index]
        a, b = (noisy(true, 0.7, rng, missing=0.05) for _ in range(2))
        interval = noise_free_share(contrast, a, b)
        found.append(interval.estimate)
        covered.append(interval.low <= exact <= interval.high)
        once.append(noise_free_share(contrast, a, a).estimate)
    error = float(np.std(found)) / np.sqrt(len(found))
    assert abs(np.mean(found) - exact) < 3 * error + 0.02 * exact
    assert np.mean(covered) > (0.9 if likelihoods or n_each == 10 else 0.84)
    assert np.mean(once) < 0.75 * exact


def test_alpha_of_the_published_example() -> None:
    """Krippendorff (2011), four observers, twelve units, missing data: ordinal alpha .815."""
    nan = -1
    rows = [
        [0, 1, 2, 2, 1, 0, 3, 0, 1, nan, nan, nan],
        [0, 1, 2, 2, 1, 1, 3, 0, 1, 4, nan, 2],
        [nan, 2, 2, 2, 1, 2, 3, 1, 1, 4, 0, nan],
        [0, 1, 2, 2, 1, 3, 3, 0, 1, 4, 0, nan],
    ]
    assert krippendorff_alpha(np.array(rows), N_LEVELS) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_two_readers_is_that_of_agreement() -> None:
    """The general formula and the one for two readers are the same number."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, N_LEVELS, 60)
    b = noisy(a, 0.6, rng, 0.1)
    assert krippendorff_alpha(np.stack([a, b]), N_LEVELS) == pytest.approx(agreement(a, b, N_LEVELS).krippendorff_alpha)


def test_alpha_needs_something_to_disagree_about() -> None:
    """One level used by all, or no response read twice: no alpha; one reader: an error."""
    assert krippendorff_alpha(np.zeros((2, 9), dtype=int), N_LEVELS) is None
    assert krippendorff_alpha(np.array([[0, -1], [-1, 1]]), N_LEVELS) is None
    with pytest.raises(SampleError, match="two readers"):
        krippendorff_alpha(np.zeros((1, 9), dtype=int), N_LEVELS)


def test_missing_is_counted_by_side_and_compared_as_a_level_of_its_own() -> None:
    """A judge that is silent about a tenth before and a third after says so; agreement on silence is apart from agreement on levels."""
    prompt = np.repeat(np.arange(10), 12)
    after = np.tile(np.arange(12) >= 6, 10)
    contrast = side_contrast(after, prompt)
    first = np.tile(np.arange(12) % N_LEVELS, 10)
    gone = np.where(after, np.arange(120) % 3 == 0, False)
    second = np.where(gone, -1, first)
    found = second_reading(contrast, np.where(gone, -1, first), second, N_LEVELS)
    assert found.missing == pytest.approx(np.array([[0, 1 / 3], [0, 1 / 3]]))
    assert found.missing_kappa == pytest.approx(1.0)
    assert found.both.n == 120 - gone.sum()
    assert found.both.exact == 1.0
    none = second_reading(contrast, first, second, N_LEVELS)
    assert none.missing_kappa == pytest.approx(0.0)
    assert none.missing[0] == pytest.approx([0, 0])


def test_nothing_is_said_where_nothing_can_be() -> None:
    """Too few responses in common, readings that contradict each other: no number. Other responses: an error."""
    contrast = side_contrast(np.tile([False, True], 30), np.repeat(np.arange(10), 6))
    rng = np.random.default_rng(0)
    a = rng.integers(0, N_LEVELS, 60)
    few = np.where(np.arange(60) < LEAST_BOTH - 2, a, -1)
    assert np.isnan(noise_free_share(contrast, a, few).estimate)
    assert np.isnan(noise_free_share(contrast, a, N_LEVELS - 1 - a).estimate)
    with pytest.raises(ShapeError, match="60 responses"):
        second_reading(contrast, a, a[:50], N_LEVELS)


def test_agreement_comes_with_intervals_over_prompts() -> None:
    """Kappa of two readings that are right 8 times in 10 (by chance otherwise) is about .64, inside its interval."""
    rng = np.random.default_rng(1)
    contrast = side_contrast(np.tile(np.arange(20) >= 10, 30), np.repeat(np.arange(30), 20))
    true = rng.integers(0, N_LEVELS, 600)
    found = second_reading(contrast, noisy(true, 0.8, rng), noisy(true, 0.8, rng), N_LEVELS)
    for interval in (found.weighted_kappa, found.krippendorff_alpha):
        assert interval.low < 0.64 < interval.high
        assert interval.high - interval.low < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("likelihoods", [True, False])
def test_few_responses_a_prompt_do_not_make_the_noise_free_share_larger_or_smaller(likelihoods: bool, rng: np.random.Generator) -> None:
    """An exact label read twice shows its own share with four to six responses a prompt, from several anchors or from two sides."""
    run = planted_run(rng, n_prompts=24, effects=[4.0], hidden=0.8, course=np.linspace(0, 1, 6))
    left, right, drawn_at, n_each = ((0, 1, 2), (3, 4, 5), range(6), 1) if likelihoods else ((0,), (5,), (0, 5), 4)
    p, q = run.mixture(left), run.mixture(right)
    m, s, x = (p + q) / 2, (p - q) / (p + q), run.labels[0]
    x = x - (m * x).sum(axis=1, keepdims=True)
    truth = float((m * x * s).sum() ** 2 / (m * x * x).sum() / ((m * s * s).sum() if likelihoods else 24))
    found = []
    for _ in range(60):
        sample = draw(run, tuple(drawn_at), n_each, rng)
        contrast = contrast_of(sample, left, right, likelihoods=likelihoods)
        label = sample.labels_of(run)[0][contrast.index]
        found.append(noise_free_share(contrast, label, label).estimate)
    assert abs(np.mean(found) - truth) < 0.02 + 2 * np.std(found) / np.sqrt(60)
