from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.evidence import choose_pairs, shown_pairs


def world(rng: np.random.Generator, n_prompts: int = 8, n_each: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals, s and prompt codes of `n_each` responses a side and prompt."""
    prompt = np.repeat(np.arange(n_prompts), 2 * n_each)
    s = np.where(rng.random(prompt.size) < 0.5, 1, -1) * rng.uniform(0.1, 1, prompt.size)
    return s * rng.uniform(0, 1, s.size), s, prompt


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.integers(1, 30))
def test_a_pair_answers_one_prompt_once_from_each_side(seed: int, n_prompts: int, n_each: int, wanted: int) -> None:
    """Whatever is asked for: at most that many pairs, all different, same prompt, first more probable before, second after."""
    rng = np.random.default_rng(seed)
    residual, s, prompt = world(rng, n_prompts, n_each)
    pairs = choose_pairs(residual, s, prompt, wanted, rng)
    assert len(pairs) <= wanted
    assert len(set(pairs)) == len(pairs)
    for before, after in pairs:
        assert prompt[before] == prompt[after]
        assert s[before] > 0 > s[after]


def test_the_least_explained_responses_come_first(rng: np.random.Generator) -> None:
    """Without random ones, each prompt's first pair holds its largest residual on either side, the largest prompt first."""
    residual, s, prompt = world(rng)
    pairs = choose_pairs(residual, s, prompt, 8, rng, random_part=0.0)
    for before, after in pairs:
        rows = prompt == prompt[before]
        assert abs(residual[before]) == np.abs(residual[rows & (s > 0)]).max()
        assert abs(residual[after]) == np.abs(residual[rows & (s < 0)]).max()
    strength = [abs(residual[b]) + abs(residual[a]) for b, a in pairs]
    assert strength == sorted(strength, reverse=True)


def test_every_prompt_is_shown_before_any_is_shown_twice(rng: np.random.Generator) -> None:
    """One loud prompt does not crowd out the others."""
    residual, s, prompt = world(rng, n_prompts=6)
    residual[prompt == 2] *= 100
    pairs = choose_pairs(residual, s, prompt, 12, rng, random_part=0.0)
    assert sorted(prompt[b] for b, _ in pairs[:6]) == list(range(6))
    assert sorted(prompt[b] for b, _ in pairs) == sorted([*range(6), *range(6)])


def test_a_quarter_of_the_pairs_is_drawn_at_random(rng: np.random.Generator) -> None:
    """A proposer that sees extremes only takes the exception for the rule: three of twelve are ordinary."""
    residual, s, prompt = world(rng, n_prompts=20, n_each=30)
    chosen = [pair for _ in range(20) for pair in choose_pairs(residual, s, prompt, 12, rng)]

    def rank(row: int) -> float:
        rows = (prompt == prompt[row]) & (np.sign(s) == np.sign(s[row]))
        return float(np.mean(np.abs(residual[rows]) > abs(residual[row])))

    ordinary = np.mean([rank(before) > 0.15 for before, _ in chosen])
    assert 0.15 <= ordinary <= 0.25


def test_a_prompt_seen_on_one_side_gives_no_pair(rng: np.random.Generator) -> None:
    """Where nothing stands on the other side there is nothing to compare; with no such prompt at all the list is empty."""
    residual, s, prompt = world(rng, n_prompts=3)
    s = np.where(prompt == 1, np.abs(s), s)
    assert {prompt[b] for b, _ in choose_pairs(residual, s, prompt, 30, rng)} == {0, 2}
    assert choose_pairs(residual, np.abs(s), prompt, 30, rng) == []


def test_the_same_generator_chooses_the_same_pairs(rng: np.random.Generator) -> None:
    """A resumed run shows what the interrupted one showed."""
    residual, s, prompt = world(rng)
    first, again = (choose_pairs(residual, s, prompt, 12, np.random.default_rng(5)) for _ in range(2))
    assert first == again


def test_sides_are_blinded(rng: np.random.Generator) -> None:
    """A is before in about half of the pairs; what is shown are the texts of one prompt, and only `a_is_before` knows."""
    n = 400
    prompts = [f"Q{k // 2}" for k in range(2 * n)]
    completions = [f"{'early' if k % 2 == 0 else 'late'} {k // 2}" for k in range(2 * n)]
    shown = shown_pairs([(2 * k, 2 * k + 1) for k in range(n)], [""] * 2 * n, prompts, completions, rng)
    assert np.mean([pair.a_is_before for pair in shown]) == pytest.approx(0.5, abs=0.08)
    assert [pair.key for pair in shown[:3]] == ["P1", "P2", "P3"]
    for k, pair in enumerate(shown):
        before, after = (pair.a, pair.b) if pair.a_is_before else (pair.b, pair.a)
        assert (pair.prompt, before, after) == (f"Q{k}", f"early {k}", f"late {k}")
