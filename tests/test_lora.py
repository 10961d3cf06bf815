from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.errors import SampleError, ShapeError
from probes.lora import (
    Rotation,
    comp_score,
    gram_of_b,
    gram_of_products,
    leg_lengths,
    local_cosine,
    normalised,
    norms,
    place_over_runs,
    rotation,
    trajectory_pca,
)
from tracing.adapters import read_adapters


def _gram(path: np.ndarray) -> np.ndarray:
    return gram_of_b([path[:, :, None]])


def _corner(n: int = 61, at: int = 30) -> np.ndarray:
    """Unit steps along one axis, then along another."""
    t = np.arange(n)
    return np.stack([np.minimum(t, at), np.maximum(t - at, 0)], axis=1).astype(float)


# local cosine


def test_a_sharp_right_angle_has_the_known_local_cosines() -> None:
    """One sharp corner of 90 degrees, k = 10: 0, -.243, -.707, -.970, -1 at distance 0, 2, 5, 8, 10 from it, on both sides."""
    c = local_cosine(_gram(_corner()), 10)
    for side in (-1, 1):
        found = [c[30 + side * distance] for distance in (0, 2, 5, 8, 10)]
        assert found == pytest.approx([0.0, -0.243, -0.707, -0.970, -1.0], abs=5e-4)


def test_straight_is_minus_one_and_a_reversal_plus_one() -> None:
    """A straight line has local cosine -1 everywhere, a path that turns back on itself +1 at the turn."""
    t = np.arange(41.0)
    line = np.outer(t, [1.0, 2.0, -1.0])
    assert local_cosine(_gram(line), 5)[5:-5] == pytest.approx(-1.0)
    back = np.outer(np.minimum(t, 40 - t), [1.0, 2.0, -1.0])
    assert local_cosine(_gram(back), 5)[20] == pytest.approx(1.0)


def test_ends_are_unknown() -> None:
    """Within k of an end there is no local cosine, never a made-up one."""
    c = local_cosine(_gram(_corner()), 10)
    assert np.isnan(c[:10]).all()
    assert np.isnan(c[-10:]).all()
    assert np.isfinite(c[10:-10]).all()


def test_a_step_is_skipped_when_the_longer_leg_is_short() -> None:
    """Where the adapter hardly moves on both sides its direction is noise and is left out; one long leg is enough to keep a step."""
    speed = np.where(np.arange(60) < 40, 1.0, 1e-4)
    path = np.concatenate([[0.0], np.cumsum(speed)])[:, None] * np.ones(3)
    c = local_cosine(_gram(path), 5, min_leg=0.05)
    assert np.isfinite(c[5:41]).all()
    assert np.isfinite(c[44])
    assert np.isnan(c[46:]).all()


def test_standing_still_has_no_direction(rng: np.random.Generator) -> None:
    """A trajectory that stops has no local cosine there: rounding is not taken for movement."""
    path = np.concatenate([np.cumsum(rng.normal(size=(20, 8)) + 1, axis=0), np.zeros((20, 8))])
    path[20:] = path[19]
    assert np.isnan(local_cosine(_gram(path * 1e6), 3, min_leg=0.0)[24:]).all()


def test_the_local_cosine_is_that_of_the_vectors(rng: np.random.Generator) -> None:
    """From the Gram matrix comes exactly what the vectors give."""
    v = np.cumsum(rng.normal(size=(30, 17)), axis=0)
    c = local_cosine(_gram(v), 4, min_leg=0.0)
    for t in range(4, 26):
        a, b = v[t - 4] - v[t], v[t + 4] - v[t]
        assert c[t] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_local_cosine_does_not_depend_on_scale_or_basis(rng: np.random.Generator) -> None:
    """Scaling and rotating the space change nothing."""
    v = np.cumsum(rng.normal(size=(40, 6)) + 0.5, axis=0)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert local_cosine(_gram(1000 * v @ q), 5)[5:-5] == pytest.approx(local_cosine(_gram(v), 5)[5:-5])


def test_the_normalised_path_ignores_growth_and_gates_small_norms() -> None:
    """B/|B| of a vector that only grows never moves; where the norm is under the gate the direction is unknown."""
    t = np.arange(41.0)
    direction = np.stack([np.cos(t / 40), np.sin(t / 40)], axis=1)
    grown = direction * np.where(t < 3, 1e-3, t)[:, None]
    unit = normalised(_gram(grown), min_norm=0.05)
    assert np.isnan(unit[:3]).all()
    assert np.diag(unit)[3:] == pytest.approx(1.0)
    c = local_cosine(unit, 5)
    assert np.isnan(c[:8]).all()
    assert c[8:36] == pytest.approx(-np.cos(5 / 40), abs=1e-6)  # chords of a circle


@pytest.mark.parametrize("k", [0, 31])
def test_an_impossible_leg_is_refused(k: int) -> None:
    """A leg of no or too many checkpoints is one clear error."""
    with pytest.raises(SampleError, match="expected k from 1 to 30 for 61 checkpoints"):
        local_cosine(_gram(_corner()), k)


# Gram matrices


def test_products_of_any_rank_are_never_formed_but_exact(rng: np.random.Generator) -> None:
    """The Gram matrix of the products B A, of two modules and with their scale, is that of the big matrices."""
    pairs = [(rng.normal(size=(5, r, n)), rng.normal(size=(5, m, r))) for r, n, m in ((3, 7, 11), (1, 4, 6))]
    scale = rng.uniform(1, 2, 5)
    big = np.concatenate([np.stack([scale[t] * b[t] @ a[t] for t in range(5)]).reshape(5, -1) for a, b in pairs], axis=1)
    assert gram_of_products(pairs, scale) == pytest.approx(big @ big.T)
    assert norms(gram_of_products(pairs, scale)) == pytest.approx(np.linalg.norm(big, axis=1))


def test_products_do_not_see_how_they_are_split(rng: np.random.Generator) -> None:
    """Turning the inner basis of B and A along the run turns B but leaves the products where they are."""
    a, b = rng.normal(size=(21, 2, 8)), rng.normal(size=(21, 5, 2))
    inner = rng.normal(size=(21, 2, 2)) + 3 * np.eye(2)
    other = np.linalg.inv(inner) @ a, b @ inner
    assert gram_of_products([other]) == pytest.approx(gram_of_products([(a, b)]))
    assert gram_of_b([other[1]]) != pytest.approx(gram_of_b([b]))


def test_modules_are_stacked(rng: np.random.Generator) -> None:
    """Several modules are one long vector."""
    first, second = rng.normal(size=(9, 4, 2)), rng.normal(size=(9, 3, 1))
    long = np.concatenate([first.reshape(9, -1), second.reshape(9, -1)], axis=1)
    assert gram_of_b([first, second]) == pytest.approx(long @ long.T)


def test_modules_with_other_steps_are_refused(rng: np.random.Generator) -> None:
    """Trajectories of different length, or none, are no trajectory of one run."""
    with pytest.raises(ShapeError, match=r"numbers of steps \[4, 5\]"):
        gram_of_b([rng.normal(size=(4, 2, 1)), rng.normal(size=(5, 2, 1))])
    with pytest.raises(ShapeError, match="none"):
        gram_of_b([])
    with pytest.raises(ShapeError, match="expected A"):
        gram_of_products([(rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 5, 1)))])


# PCA and comp score


def test_trajectory_pca_is_the_svd_of_the_centred_path(rng: np.random.Generator) -> None:
    """Explained parts and distances are those of the singular value decomposition; the last step stands on the positive side."""
    v = np.cumsum(rng.normal(size=(20, 30)), axis=0)
    found = trajectory_pca(_gram(v), 3)
    _, singular, _ = np.linalg.svd(v - v.mean(axis=0))
    assert found.explained == pytest.approx(singular[:3] ** 2 / np.sum(singular**2))
    assert found.coordinates.std(axis=0) == pytest.approx(singular[:3] / np.sqrt(20))
    assert (found.coordinates[-1] > 0).all()


def test_a_random_walk_has_a_dominant_first_component(rng: np.random.Generator) -> None:
    """A walk without any structure gives its first component more than 55%: this is why the result carries a warning."""
    v = np.cumsum(rng.normal(size=(60, 2000)), axis=0)
    found = trajectory_pca(_gram(v))
    assert found.explained[0] > 0.55
    assert "drifting optimizer" in found.warning


def test_a_path_that_never_moves_has_no_components() -> None:
    """The same weights at every checkpoint are refused."""
    with pytest.raises(SampleError, match="adapter that moves"):
        trajectory_pca(_gram(np.ones((5, 3))))
    with pytest.raises(SampleError, match="at least 2"):
        trajectory_pca(_gram(np.ones((1, 3))))


def test_comp_score_is_that_of_the_big_matrices(rng: np.random.Generator) -> None:
    """|W1^T W2| / (|W1| |W2|) for adapters of different rank and input width, without forming W."""
    first = rng.normal(size=(2, 9)), rng.normal(size=(7, 2))
    second = rng.normal(size=(4, 5)), rng.normal(size=(7, 4))
    w1, w2 = first[1] @ first[0], second[1] @ second[0]
    assert comp_score(first, second) == pytest.approx(np.linalg.norm(w1.T @ w2) / np.linalg.norm(w1) / np.linalg.norm(w2))


def test_comp_score_knows_same_and_orthogonal_directions(rng: np.random.Generator) -> None:
    """Rank 1: 1 for the same output direction whatever the inputs, 0 for orthogonal ones; an orthonormal product of rank r: 1/sqrt(r)."""
    out = np.eye(6)
    same = comp_score((rng.normal(size=(1, 9)), out[:, :1]), (rng.normal(size=(1, 4)), -3 * out[:, :1]))
    apart = comp_score((rng.normal(size=(1, 9)), out[:, :1]), (rng.normal(size=(1, 9)), out[:, 1:2]))
    assert same == pytest.approx(1.0)
    assert apart == pytest.approx(0.0)
    assert comp_score((np.eye(4), out[:, :4]), (np.eye(4), out[:, :4])) == pytest.approx(0.5)


def test_comp_score_of_nothing_is_refused() -> None:
    """A zero adapter writes nowhere; adapters of different outputs cannot be compared."""
    with pytest.raises(SampleError, match="B A = 0"):
        comp_score((np.ones((1, 3)), np.zeros((4, 1))), (np.ones((1, 3)), np.ones((4, 1))))
    with pytest.raises(ShapeError, match="one output"):
        comp_score((np.ones((1, 3)), np.ones((4, 1))), (np.ones((1, 3)), np.ones((5, 1))))


# the place of the rotation


def test_a_corner_is_found_where_it_is(rng: np.random.Generator) -> None:
    """The rotation of a noisy path with one corner is at the corner for every leg length and threshold, within one checkpoint."""
    path = np.zeros((61, 64))
    path[:, :2] = _corner(61, 24)
    found = rotation(_gram(path + 0.02 * rng.normal(size=path.shape)), [2 * t for t in range(61)])
    assert found is not None
    assert found.step == 48
    assert 46 <= found.low <= found.high <= 50
    assert len(found.bends) == found.n_settings == 3 * len(leg_lengths(61))


def test_several_modules_turn_together_or_alone() -> None:
    """Two modules that turn at different times: each alone shows its own place, stacked the larger one decides."""
    early, late = _corner(61, 20), 10 * _corner(61, 40)
    steps = range(61)
    places = [rotation(gram_of_b([path[:, :, None] for path in paths]), steps) for paths in ([early], [late], [early, late])]
    assert [round(found.step) if found else None for found in places] == [20, 40, 40]


@pytest.mark.parametrize("kind", ["line", "circle", "walk"])
def test_what_turns_nowhere_has_no_rotation(kind: str) -> None:
    """A straight line, an even circle and, in at most 1 of 100 draws, a random walk of 64 dimensions have no rotation."""
    t = np.arange(61.0)
    if kind == "line":
        paths = [np.outer(t, np.arange(1.0, 5.0))]
    elif kind == "circle":
        paths = [np.stack([np.cos(t / 20), np.sin(t / 20)], axis=1)]
    else:
        draw = np.random.default_rng(5)
        paths = [np.cumsum(draw.normal(size=(61, 64)), axis=0) for _ in range(100)]
    assert sum(rotation(_gram(path), range(61)) is not None for path in paths) <= 1


def test_a_noisy_straight_path_has_no_rotation(rng: np.random.Generator) -> None:
    """Drift with noise on top, as a late training phase has it, turns nowhere in 50 draws."""
    found = 0
    for _ in range(50):
        drift = np.outer(np.linspace(0, 30, 61), rng.normal(size=64)) + np.cumsum(0.3 * rng.normal(size=(61, 64)), axis=0)
        found += rotation(_gram(drift), range(61)) is not None
    assert found == 0


def test_an_optimizers_noise_has_no_rotation(rng: np.random.Generator) -> None:
    """Walks with Adam's momentum (beta1 = .9, two steps a checkpoint), as of training that learns nothing, turn nowhere in 50 draws."""
    found = 0
    for _ in range(50):
        kicks, moment = rng.normal(size=(122, 64)), np.zeros((122, 64))
        for t in range(1, 122):
            moment[t] = 0.9 * moment[t - 1] + 0.1 * kicks[t]
        found += rotation(_gram(np.cumsum(moment, axis=0)[::2]), range(61)) is not None
    assert found == 0


def test_rotation_refuses_what_does_not_fit() -> None:
    """Steps and trajectory of different length, and runs too short for any leg, are clear errors."""
    with pytest.raises(ShapeError, match="3 steps and 61"):
        rotation(_gram(_corner()), [0, 1, 2])
    with pytest.raises(SampleError, match="at least 3 checkpoints, found 2"):
        rotation(_gram(np.eye(2)), [0, 1])


def test_repeated_runs_give_the_place_an_interval() -> None:
    """The place over seeds is the mean with Student's interval; one run has none."""
    runs = [Rotation(step, step, step, 0.0, (), 1) for step in (40.0, 44.0, 36.0)]
    found = place_over_runs(runs)
    assert found.estimate == 40
    assert found.high - found.estimate == pytest.approx(4.3027 * 4 / np.sqrt(3), rel=1e-4)
    assert np.isnan(place_over_runs(runs[:1]).low)


def test_the_organism_turns_once(organism_run: Path) -> None:
    """On the recorded organism B and the product B A turn at one place, for all leg lengths and thresholds within eight steps."""
    adapters = read_adapters(organism_run)
    (factors,) = adapters.modules.values()
    raw = rotation(gram_of_b([factors.b]), adapters.steps)
    product = rotation(gram_of_products([(factors.a, factors.b)], factors.scale), adapters.steps)
    assert raw is not None
    assert product is not None
    assert abs(raw.step - product.step) <= 4
    assert raw.high - raw.low <= 8
    assert 10 < raw.step < 80
