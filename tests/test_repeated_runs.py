from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from probes.errors import SampleError, ShapeError
from probes.lora import gram_of_b, rotation
from probes.repeated_runs import cross_grams, gram_of_mean, mean_cosine, rotation_over_runs

STEPS = range(61)
CORNER = 15
WIDE = 64


def inner_products(paths: list[np.ndarray]) -> np.ndarray:
    """Of every two paths (n_steps, d), as of adapters of rank 1 with the same A."""
    return cross_grams([[(np.ones((len(path), 1, 1)), path[:, :, None], 1.0)] for path in paths])


def adam_noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Increments of a walk as Adam's first moment makes it (beta1 = .8, two steps a checkpoint), of length about 1 each."""
    moment, found = np.zeros(WIDE), []
    for _ in range(n):
        moved = np.zeros(WIDE)
        for _ in range(2):
            moment = 0.8 * moment + 0.2 * rng.normal(size=WIDE)
            moved += moment
        found.append(moved)
    return np.asarray(found / np.linalg.norm(found, axis=1).mean())


def runs(rng: np.random.Generator, later: str, n: int = 8) -> list[np.ndarray]:
    """Runs that go straight for 15 checkpoints at .15 each, then are noise of .05 and drift by .02 each: nowhere, on, or sideways."""
    direction = np.zeros((len(STEPS) - 1, WIDE))
    direction[:CORNER, 0] = 0.15
    direction[CORNER:, {"stop": 2, "on": 0, "turn": 1}[later]] = 0.0 if later == "stop" else 0.02
    size = np.where(np.arange(len(STEPS) - 1) < CORNER, 0.02, 0.05)[:, None]
    return [np.concatenate([np.zeros((1, WIDE)), np.cumsum(direction + size * adam_noise(rng, len(direction)), axis=0)]) for _ in range(n)]


def test_the_gram_matrix_of_the_mean_path_is_free_of_noise(rng: np.random.Generator) -> None:
    """Averaged over many sets of noisy runs it is that of the path without noise; that of one run is far off."""
    path = np.cumsum(0.5 * rng.normal(size=(5, 3)), axis=0)
    sets = [[path + rng.normal(size=path.shape) for _ in range(3)] for _ in range(250)]
    found = np.mean([gram_of_mean(inner_products(each)) for each in sets], axis=0)
    single = np.mean([each[0] @ each[0].T for each in sets], axis=0)
    assert found == pytest.approx(path @ path.T, abs=0.6)
    assert np.diag(single - path @ path.T) == pytest.approx(3.0, abs=1.2)


def test_inner_products_between_runs_do_not_see_how_products_are_split(rng: np.random.Generator) -> None:
    """They are those of the products scale * B A of several modules, in whatever inner basis each run has them."""

    def run() -> list[tuple[np.ndarray, np.ndarray, float]]:
        return [
            (rng.normal(size=(4, 2, 7)), rng.normal(size=(4, 5, 2)), 2.0),
            (rng.normal(size=(4, 1, 3)), rng.normal(size=(4, 6, 1)), 0.5),
        ]

    first, second = run(), run()
    big = [np.concatenate([(s * b @ a).reshape(4, -1) for a, b, s in each], axis=1) for each in (first, second)]
    turn = np.array([[0.0, 1.0], [-2.0, 1.0]])
    (a, b, scale), other = first[0], first[1]
    assert cross_grams([first, second])[0, 1] == pytest.approx(big[0] @ big[1].T)
    turned = [(np.linalg.inv(turn) @ a, b @ turn, scale), other]
    assert cross_grams([turned, second]) == pytest.approx(cross_grams([first, second]))


def test_a_turn_of_the_mean_path_is_found_with_limits(rng: np.random.Generator) -> None:
    """A corner into a drift that is slower than the noise is found in all of 6 sets of runs, at most two checkpoints off."""
    found = [rotation_over_runs(inner_products(runs(rng, "turn")), STEPS) for _ in range(6)]
    assert all(each is not None for each in found)
    for each in found:
        assert each is not None
        assert abs(each.step - CORNER) <= 2
        assert each.low <= each.step <= each.high <= CORNER + 6
        assert abs(each.cosine) < 0.4
        assert 0 < each.prominence_low < each.prominence


@pytest.mark.parametrize("later", ["stop", "on"])
def test_noise_that_is_left_over_is_no_turn(later: str, rng: np.random.Generator) -> None:
    """Runs that go straight and stop, or go on slowly, turn nowhere on average, though single runs seem to."""
    sets = [runs(rng, later) for _ in range(6)]
    assert [rotation_over_runs(inner_products(each), STEPS) for each in sets] == [None] * 6
    if later == "stop":
        singles = [rotation(gram_of_b([path[:, :, None]]), STEPS) for each in sets for path in each]
        assert sum(found is not None for found in singles) >= 8


def walks(rng: np.random.Generator) -> list[np.ndarray]:
    """Runs that have nothing in common."""
    return [np.cumsum(rng.normal(size=(61, WIDE)), axis=0) for _ in range(8)]


def around(rng: np.random.Generator, path: np.ndarray, noise: float) -> list[np.ndarray]:
    """Walks around a common path."""
    return [np.pad(path, ((0, 0), (0, WIDE - path.shape[1]))) + noise * walk for walk in walks(rng)]


@pytest.mark.parametrize(
    "made",
    [
        walks,
        lambda rng: around(rng, np.cumsum(rng.normal(size=(61, WIDE)), axis=0), 0.5),
        lambda rng: around(rng, np.outer(np.linspace(0, 30, 61), rng.normal(size=WIDE)), 0.3),
        lambda rng: around(rng, np.stack([np.cos(np.arange(61) / 20), np.sin(np.arange(61) / 20)], axis=1), 0.01),
    ],
    ids=["walks", "runs around one walk", "noisy drift", "circle"],
)
def test_what_turns_nowhere_has_no_mean_rotation(made: Callable[[np.random.Generator], list[np.ndarray]], rng: np.random.Generator) -> None:
    """Independent walks, runs around a common walk, noisy drift and an even circle: nothing in 6 draws each."""
    assert [rotation_over_runs(inner_products(made(rng)), STEPS) for _ in range(6)] == [None] * 6


def test_the_known_local_cosines_survive_averaging() -> None:
    """Equal runs with one sharp corner of 90 degrees, k = 10: 0, -.243, -.707, -.970, -1 at distance 0, 2, 5, 8, 10 from it."""
    t = np.arange(61)
    path = np.stack([np.minimum(t, 30), np.maximum(t - 30, 0)], axis=1).astype(float)
    found = mean_cosine(inner_products([path] * 4), [10])
    assert [found.estimate[30 + distance] for distance in (0, 2, 5, 8, 10)] == pytest.approx([0.0, -0.243, -0.707, -0.970, -1.0], abs=5e-4)
    assert np.isnan(found.estimate[:10]).all()


def test_runs_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    """Too few runs, other shapes, steps of another length and impossible legs are clear errors."""
    cross = inner_products(walks(rng))
    with pytest.raises(SampleError, match="at least 4 runs, found 3"):
        rotation_over_runs(cross[:3, :3], STEPS)
    with pytest.raises(SampleError, match="at least 2 runs"):
        gram_of_mean(cross[:1, :1])
    with pytest.raises(ShapeError, match="same modules"):
        inner_products([np.ones((4, 2)), np.ones((5, 2))])
    with pytest.raises(ShapeError, match="2 steps and 61"):
        rotation_over_runs(cross, [0, 1])
    with pytest.raises(SampleError, match="leg lengths from 1 to 30"):
        mean_cosine(cross, [31])
