from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from probes.dissimilarity import Contrast, side_contrast
from probes.errors import ShapeError
from probes.explained_share import explained
from probes.shapley import MAX_SHAPLEY, shapley
from probes.synthetic import contrast_of, draw, exact_change, planted_run


def _sample(rng: np.random.Generator, n_prompts: int, n_each: int, likelihoods: bool) -> tuple[Contrast, list[np.ndarray]]:
    run = planted_run(rng, n_prompts=n_prompts, effects=[0.8, 0.4, 0.0], correlation=0.5, n_outcomes=80)
    sample = draw(run, [0, 1], n_each, rng)
    return contrast_of(sample, [0], [1], likelihoods=likelihoods), list(sample.labels_of(run))


@pytest.mark.parametrize("likelihoods", [True, False])
@pytest.mark.parametrize(("n_prompts", "n_each"), [(7, 4), (3, 6), (9, 1)])
def test_parts_are_the_mean_gain_over_all_orders_of_entry(likelihoods: bool, n_prompts: int, n_each: int, rng: np.random.Generator) -> None:
    """For four labels, one of them twice, all 24 orders fitted one by one give the same parts, per prompt and per jackknife value."""
    contrast, labels = _sample(rng, n_prompts, n_each, likelihoods)
    labels = [*labels, labels[0]]
    found = shapley(contrast, labels)
    per_prompt, loo = np.zeros((4, contrast.n_prompts)), np.zeros((4, found[0].change_loo.size))
    value = {subset: explained(contrast, [labels[k] for k in subset]) for size in range(5) for subset in combinations(range(4), size)}
    for order in permutations(range(4)):
        for place, j in enumerate(order):
            gain = value[tuple(sorted(order[: place + 1]))].minus(value[tuple(sorted(order[:place]))])
            per_prompt[j] += gain.per_prompt / 24
            loo[j] += gain.change_loo / 24
    for j, part in enumerate(found):
        assert part.per_prompt == pytest.approx(per_prompt[j], abs=1e-10)
        assert part.change == pytest.approx(per_prompt[j].mean(), abs=1e-10)
        assert part.change_loo == pytest.approx(loo[j], abs=1e-10, nan_ok=True)


def test_parts_add_up_and_equal_labels_get_equal_parts(rng: np.random.Generator) -> None:
    """The parts sum to the joint D[O] in every jackknife group; a label given twice has twice the same part; a constant one has 0."""
    contrast, labels = _sample(rng, 8, 5, True)
    found = shapley(contrast, [*labels, labels[0], np.zeros_like(labels[0])])
    joint = explained(contrast, labels)
    assert sum(part.change for part in found) == pytest.approx(joint.change, abs=1e-10)
    assert np.sum([part.change_loo for part in found], axis=0) == pytest.approx(joint.change_loo, abs=1e-10)
    assert found[0].change == pytest.approx(found[3].change, abs=1e-10)
    assert found[4].change == 0.0
    assert found[0].total == joint.total
    assert found[0].share_interval.n_groups == 8


def test_one_label_has_all_and_none_has_nothing(rng: np.random.Generator) -> None:
    """A single label's part is its D[O] with the same interval; no labels, no parts."""
    contrast, labels = _sample(rng, 8, 5, True)
    (only,) = shapley(contrast, labels[:1])
    alone = explained(contrast, labels[:1])
    assert only.change == pytest.approx(alone.change, abs=1e-12)
    assert only.change_loo == pytest.approx(alone.change_loo, abs=1e-12)
    assert shapley(contrast, []) == []


def test_more_labels_than_can_be_visited_are_refused(rng: np.random.Generator) -> None:
    """13 labels are a ShapeError that names both numbers."""
    contrast, labels = _sample(rng, 7, 2, True)
    with pytest.raises(ShapeError, match=f"at most {MAX_SHAPLEY} parameters, found 13"):
        shapley(contrast, [labels[0]] * 13)


def test_levels_of_one_response_and_vanishing_weights_are_the_same_as_for_single_sets(rng: np.random.Generator) -> None:
    """Levels of a single response and weights of 0 give the same joint sum as the estimator of one set, and nothing that is not finite."""
    contrast, labels = _sample(rng, 7, 3, True)
    weight = contrast.weight.copy()
    weight[[0, 9]] = 0.0
    weight /= np.bincount(contrast.prompt, weights=weight)[contrast.prompt]
    uneven = Contrast(contrast.s, weight, contrast.prompt, True, contrast.group, contrast.index)
    rare = np.zeros(contrast.s.size, dtype=int)
    rare[3] = 1
    found = shapley(uneven, [*labels, rare])
    assert np.isfinite([part.change for part in found]).all()
    assert sum(part.change for part in found) == pytest.approx(explained(uneven, [*labels, rare]).change, abs=1e-10)


def test_responses_need_not_be_sorted_by_prompt(rng: np.random.Generator) -> None:
    """The order of the responses does not matter."""
    after, prompt = rng.random(160) < 0.5, rng.integers(0, 8, 160)
    contrast = side_contrast(after, prompt)
    labels = [rng.integers(0, 3, contrast.s.size) + contrast.s.astype(int) for _ in range(3)]
    order = np.argsort(contrast.prompt, kind="stable")
    in_order = Contrast(contrast.s[order], contrast.weight[order], contrast.prompt[order], False, contrast.prompt[order], order)
    for mine, theirs in zip(shapley(contrast, labels), shapley(in_order, [label[order] for label in labels]), strict=True):
        assert mine.per_prompt == pytest.approx(theirs.per_prompt, abs=1e-10)


def test_estimated_parts_centre_on_the_exact_ones(rng: np.random.Generator) -> None:
    """Over 60 redraws of one planted run, every part lies on the part computed from the tables within 3 standard errors plus .003."""
    run = planted_run(rng, n_prompts=10, effects=[1.0, 0.5, 0.0], correlation=0.4, n_outcomes=100)
    exact = np.zeros(3)
    for order in permutations(range(3)):
        for place, j in enumerate(order):
            with_it, before = (list(order[:end]) for end in (place + 1, place))
            exact[j] += exact_change(run, [0], [1], run.labels[with_it]) / 6
            exact[j] -= exact_change(run, [0], [1], run.labels[before]) / 6 if before else 0.0
    parts = []
    for _ in range(60):
        sample = draw(run, [0, 1], 8, rng)
        parts.append([part.change for part in shapley(contrast_of(sample, [0], [1], likelihoods=True), list(sample.labels_of(run)))])
    error = 3 * np.std(parts, axis=0) / np.sqrt(60) + 0.003
    assert (np.abs(np.mean(parts, axis=0) - exact) < error).all()
    assert exact[0] > 4 * error[0]
