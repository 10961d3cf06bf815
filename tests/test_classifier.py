from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from probes.classifier import change_bound, quadratic_score
from probes.dissimilarity import Contrast, dissimilarity, side_contrast
from probes.errors import SampleError

positive = arrays(np.float64, 6, elements=st.floats(1e-3, 1.0)).map(lambda x: x / x.sum())
WORDS = np.array([f"word{chr(97 + k // 20)}{chr(97 + k % 20)}" for k in range(200)])


@pytest.mark.slow
@settings(max_examples=50)
@given(positive, positive, arrays(np.float64, 6, elements=st.floats(0, 1)))
def test_no_prediction_scores_above_the_change_and_the_posterior_reaches_it(p: np.ndarray, q: np.ndarray, guess: np.ndarray) -> None:
    """The mean quadratic score of any prediction is at most D, with equality at the true posterior p/(p+q), exactly (METHOD 3)."""

    def mean_score(predicted: np.ndarray) -> float:
        before, after = np.ones(6, dtype=bool), np.zeros(6, dtype=bool)
        return float(p @ quadratic_score(predicted, before) + q @ quadratic_score(predicted, after)) / 2

    change = float(dissimilarity(p, q))
    assert mean_score(guess) <= change + 1e-12
    assert mean_score(p / (p + q)) == pytest.approx(change, abs=1e-12)


def test_score_of_a_certain_prediction_and_of_none() -> None:
    """Certain and right scores 1, certain and wrong -3, one half 0; twice the prediction minus one would reward overconfidence."""
    score = quadratic_score(np.array([1.0, 0.0, 0.5, 0.5]), np.array([True, True, True, False]))
    assert score.tolist() == [1.0, -3.0, 0.0, 0.0]


def _texts(rng: np.random.Generator, after: np.ndarray, strength: float) -> list[str]:
    """Forty words each; `strength` of the later ones come from the second half of the vocabulary."""
    out = []
    for side in after:
        shifted = rng.random(40) < (strength if side else 0.0)
        out.append(" ".join(WORDS[np.where(shifted, rng.integers(100, 200, 40), rng.integers(0, 150, 40))]))
    return out


def _contrast(n_prompts: int, n_each: int) -> tuple[Contrast, np.ndarray, np.ndarray]:
    """Contrast, whether a response is after, and a confirm half that takes every other response of each side."""
    after = np.tile(np.repeat([False, True], n_each), n_prompts)
    confirm = np.tile(np.arange(n_each) % 2 == 0, 2 * n_prompts)
    return side_contrast(after, np.repeat(np.arange(n_prompts), 2 * n_each)), after, confirm


def test_bound_of_nothing_is_about_nothing() -> None:
    """Texts that do not depend on the side: over 5 runs the bound averages within 3 standard errors below 0 and never passes .15."""
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        contrast, after, confirm = _contrast(10, 8)
        bound = change_bound(contrast, confirm, _texts(rng, after, 0.0), rng.standard_normal((after.size, 3)), rng)
        found.append(bound.bound.estimate)
        assert bound.bound.low <= 0.02
    assert np.mean(found) <= 3 * np.std(found) / np.sqrt(5)
    assert max(found) < 0.15


@pytest.mark.parametrize("where", ["words", "style"])
def test_a_real_signal_is_found_where_it_is(where: str, rng: np.random.Generator) -> None:
    """A change of words is found by words, a change of length by style; limits exclude 0, and calibration rises with the prediction."""
    contrast, after, confirm = _contrast(12, 10)
    texts = _texts(rng, after, 0.5 if where == "words" else 0.0)
    style = rng.standard_normal((after.size, 3))
    style[:, 0] += 2.0 * after * (where == "style")
    found = change_bound(contrast, confirm, texts, style, rng)
    other = {"words": "style", "style": "words"}[where]
    assert found.classifier != other
    assert found.candidates[where] > found.candidates[other] + 0.2
    assert 0.2 < found.bound.low < found.bound.estimate <= 1
    assert found.leave_one_out.shape == (12,)
    predicted, observed, n = np.array(found.calibration).T
    assert (np.diff(predicted) > 0).all()
    assert observed[-1] > observed[0] + 0.5
    assert n.sum() == confirm.sum()


def test_bound_lies_below_the_exact_change(rng: np.random.Generator) -> None:
    """Sides that differ in one number, N(0,1) against N(1.5,1): the bound lies below the exact D (within .06) and above half of it."""
    contrast, after, confirm = _contrast(20, 30)
    grid = np.linspace(-8, 10, 4001)
    p, q = (np.exp(-((grid - centre) ** 2) / 2) for centre in (0.0, 1.5))
    exact = float(dissimilarity(p / p.sum(), q / q.sum()))
    style = (rng.standard_normal(after.size) + 1.5 * after)[:, None]
    found = change_bound(contrast, confirm, ["same text"] * after.size, style, rng)
    assert 0.5 * exact < found.bound.estimate < exact + 0.06


def test_missing_style_values_are_a_bin_of_their_own(rng: np.random.Generator) -> None:
    """Numbers missing on one side only show the change; a column that is missing altogether, or constant, is no trouble."""
    contrast, after, confirm = _contrast(10, 8)
    style = rng.standard_normal((after.size, 3))
    style[after & (rng.random(after.size) < 0.9), 0] = np.nan
    style[:, 1], style[:, 2] = np.nan, 1.0
    assert change_bound(contrast, confirm, _texts(rng, after, 0.0), style, rng).bound.low > 0.3


def test_nothing_to_learn_from_gives_about_zero(rng: np.random.Generator) -> None:
    """Empty answers, one word each, and no style at all: a bound of about 0, not an error."""
    contrast, after, confirm = _contrast(8, 4)
    nothing = np.full((after.size, 2), np.nan)
    for texts in ([""] * after.size, [f"w{k}" for k in range(after.size)], ["the same"] * after.size):
        for style in (nothing, np.ones((after.size, 1)), np.empty((after.size, 0))):
            assert abs(change_bound(contrast, confirm, texts, style, rng).bound.estimate) < 0.1


@pytest.mark.parametrize(("n_prompts", "n_each"), [(2, 2), (7, 1), (1, 4), (2, 1), (1, 1)])
def test_very_few_responses_give_a_number_or_one_line(n_prompts: int, n_each: int, rng: np.random.Generator) -> None:
    """Down to one response a side the bound is finite, or a SampleError says that a half has no prompt with both sides."""
    contrast, after, confirm = _contrast(n_prompts, n_each)
    if n_each == 1:
        confirm = contrast.prompt % 2 == 0
    try:
        found = change_bound(contrast, confirm, _texts(rng, after, 0.5), rng.standard_normal((after.size, 2)), rng)
    except SampleError:
        assert n_prompts == 1
        assert n_each == 1
    else:
        assert np.isfinite(found.bound.estimate)


def test_same_seed_same_bound(rng: np.random.Generator) -> None:
    """Folds come from the generator that is passed in: the same seed gives the same bound, bit for bit."""
    contrast, after, confirm = _contrast(8, 6)
    texts, style = _texts(rng, after, 0.3), rng.standard_normal((after.size, 2))
    first, again = (change_bound(contrast, confirm, texts, style, np.random.default_rng(5)) for _ in range(2))
    assert first.bound == again.bound
    assert first.candidates == again.candidates
