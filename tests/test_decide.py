from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from agent.decide import ReadAgain, Rule, decide, passed_on, round_level
from agent.records import TestRecord
from probes.dissimilarity import Contrast, side_contrast
from probes.explained_share import length_bins
from probes.synthetic import contrast_of, draw, planted_run

AGENT = Rule("agent", 0.025, 0.02, 399)
HUMAN = Rule("human", 0.05, 0.02, 399)
Labels = dict[str, np.ndarray]


def world(
    seed: int, effects: Sequence[float], *, n_prompts: int = 12, n_each: int = 20, likelihoods: bool = True
) -> tuple[Contrast, Labels]:
    """A planted contrast and the labels p0, p1, ... of its parameters."""
    rng = np.random.default_rng([41, seed])
    run = planted_run(rng, n_prompts=n_prompts, effects=effects, n_outcomes=300)
    sample = draw(run, (0, 1), n_each, rng)
    contrast = contrast_of(sample, [0], [1], likelihoods=likelihoods)
    labels = sample.labels_of(run)[:, contrast.index]
    return contrast, {f"p{k}": labels[k] for k in range(len(effects))}


def decided(
    contrast: Contrast, labels: Labels, rule: Rule = AGENT, base: Sequence[np.ndarray] = (), seed: int = 0
) -> tuple[list[str], dict[str, TestRecord]]:
    """Accepted ids and the ledger by id."""
    names = {i: f"name of {i}" for i in labels}
    accepted, ledger = decide(contrast, base, labels, names, rule, 1, np.random.default_rng(seed))
    return accepted, {t.parameter_id: t for t in ledger}


@pytest.mark.parametrize("likelihoods", [True, False])
def test_what_moved_is_accepted_and_what_did_not_is_not(likelihoods: bool) -> None:
    """The planted parameter passes, the distractor does not; the ledger holds both with gain, p and reason."""
    contrast, labels = world(0, (0.9, 0.0), likelihoods=likelihoods)
    accepted, ledger = decided(contrast, labels)
    assert accepted == ["p0"]
    assert ledger["p0"].accepted
    assert ledger["p0"].reason == ""
    assert ledger["p0"].p_value == pytest.approx(1 / 400)
    assert (ledger["p0"].name, ledger["p0"].n, ledger["p0"].round, ledger["p0"].family) == ("name of p0", contrast.s.size, 1, "agent")
    assert not ledger["p1"].accepted
    assert ledger["p1"].reason.startswith("not distinguishable from chance (p ")


def test_the_order_of_candidates_decides_nothing() -> None:
    """Accepted ids, gains and p-values are the same whichever candidate arrived first."""
    contrast, labels = world(1, (0.7, 0.0, 0.4, 0.0))
    straight = decided(contrast, labels)
    for order in (reversed(labels), ("p2", "p0", "p3", "p1")):
        assert decided(contrast, {i: labels[i] for i in order}) == straight


def test_the_strongest_is_accepted_first_and_the_others_given_it() -> None:
    """Two labels that say the same are one discovery: the second gains nothing once the first is in."""
    contrast, labels = world(2, (0.9, 0.5))
    copy = labels["p0"].copy()
    accepted, ledger = decided(contrast, {**labels, "same": copy})
    assert len(accepted) == 2
    assert accepted[0] in ("p0", "same")
    assert accepted[1] == "p1"
    (left,) = {"p0", "same"} - set(accepted)
    assert abs(ledger[left].gain or 0.0) < 0.01
    assert not ledger[left].accepted


def test_what_is_already_accepted_is_not_found_again() -> None:
    """A parameter in the base gains nothing; one beside it still does."""
    contrast, labels = world(3, (0.9, 0.6))
    accepted, ledger = decided(contrast, labels, base=[labels["p0"]])
    assert accepted == ["p1"]
    assert abs(ledger["p0"].gain or 0.0) < 0.01


def test_a_gain_below_min_share_is_not_accepted_however_certain() -> None:
    """The reason names the gain and what was needed."""
    contrast, labels = world(4, (0.9,))
    accepted, ledger = decided(contrast, labels, Rule("agent", 0.025, 0.99, 399))
    assert accepted == []
    assert "beyond length and the accepted set (at least 0.99 needed)" in ledger["p0"].reason


def test_a_p_value_above_the_level_is_not_accepted_however_large_the_gain() -> None:
    """With 99 permutations p is at least .01: nothing passes a level of .001."""
    contrast, labels = world(4, (0.9,))
    accepted, ledger = decided(contrast, labels, Rule("agent", 0.001, 0.02, 99))
    assert accepted == []
    assert (ledger["p0"].p_value, ledger["p0"].alpha) == (0.01, 0.001)


def test_a_label_with_one_level_says_nothing() -> None:
    """A judge that gives every response the same level finds nothing, and has p = 1."""
    contrast, labels = world(5, (0.9,))
    accepted, ledger = decided(contrast, {"same": np.zeros_like(labels["p0"]), "missing": np.full_like(labels["p0"], -1)})
    assert accepted == []
    assert {t.p_value for t in ledger.values()} == {1.0}


def test_no_candidates_no_ledger() -> None:
    """A round without candidates decides nothing."""
    contrast, _ = world(5, (0.9,))
    assert decide(contrast, [], {}, {}, AGENT, 1, np.random.default_rng(0)) == ([], [])


def test_human_hypotheses_are_held_against_holm_levels() -> None:
    """Three hypotheses: the first to pass at .05/3, the next at .05/2, the last at .05; marginal p-values, no maxT."""
    contrast, labels = world(6, (0.9, 0.6, 0.0))
    accepted, ledger = decided(contrast, labels, HUMAN)
    assert accepted == ["p0", "p1"]
    assert [ledger[i].alpha for i in ("p0", "p1", "p2")] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])
    assert {t.family for t in ledger.values()} == {"human"}


def test_the_agents_level_does_not_grow_with_acceptances() -> None:
    """Within a round maxT guards the family: every candidate is held against the round's level."""
    contrast, labels = world(6, (0.9, 0.6, 0.0))
    _, ledger = decided(contrast, labels)
    assert {t.alpha for t in ledger.values()} == {0.025}


def test_more_candidates_make_each_p_value_larger() -> None:
    """The best of many meaningless labels is not called significant for being the best."""
    contrast, labels = world(7, (0.05,))
    rng = np.random.default_rng(1)
    crowd = {f"noise {k}": rng.integers(0, 5, contrast.s.size) for k in range(12)}
    alone, among = decided(contrast, labels)[1], decided(contrast, {**labels, **crowd})[1]
    assert (among["p0"].p_value or 0) >= (alone["p0"].p_value or 0)


def length_world(seed: int, bent: bool) -> tuple[Contrast, Labels, np.ndarray]:
    """Sides that differ in length alone (bent: in its spread), two labels that see length alone, and the length bins."""
    n_prompts, n_each = 23, 15
    rng = np.random.default_rng([42, seed])
    after = np.tile(np.repeat([False, True], n_each), n_prompts)
    prompt = np.repeat(np.arange(n_prompts), 2 * n_each)
    usual = 4.5 + rng.normal(0, 0.2, n_prompts)[prompt]
    deviation = rng.normal(0, np.where(after, 0.3, 0.8) if bent else 0.5, after.size)
    words = np.exp(usual - (0 if bent else 1.0) * after + deviation).astype(np.int64) + 1
    labels = {
        "paragraphs": np.digitize(rng.poisson(words / 25), [1, 2, 4, 7]),
        "short or long": np.digitize(words, np.quantile(words, [0.2, 0.4, 0.6, 0.8])),
    }
    return side_contrast(after, prompt), labels, length_bins(words)


@pytest.mark.slow
@pytest.mark.parametrize("bent", [False, True])
def test_a_label_that_sees_length_alone_is_not_accepted(bent: bool) -> None:
    """Held against length bins it passes no more often than its level, though alone it shows much of the change; 20 worlds."""
    passed, alone = 0, 0
    for seed in range(20):
        contrast, labels, bins = length_world(seed, bent)
        rule = Rule("agent", 0.05, 0.02, 199)
        passed += bool(decided(contrast, labels, rule, base=[bins])[0])
        alone += bool(decided(contrast, labels, rule)[0])
    assert alone == 20
    assert passed <= 1


@pytest.mark.slow
@pytest.mark.parametrize("likelihoods", [True, False])
def test_from_noise_something_is_accepted_no_more_often_than_the_level(likelihoods: bool) -> None:
    """Five labels that say nothing, 60 worlds: the round's level bounds how often any of them passes."""
    passed = 0
    for seed in range(60):
        contrast, _ = world(seed, (0.5,), n_prompts=8, n_each=8, likelihoods=likelihoods)
        rng = np.random.default_rng([47, seed])
        noise = {f"noise {k}": rng.integers(0, 5, contrast.s.size) for k in range(5)}
        passed += bool(decided(contrast, noise, Rule("agent", 0.05, 0.0, 199), seed=seed)[0])
    assert passed / 60 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


# a judge that errs


def misread(label: np.ndarray, kappa: float, rng: np.random.Generator) -> np.ndarray:
    """A reading of `label` that is a random level with probability 1 - kappa."""
    return np.where(rng.random(label.size) < kappa, label, rng.integers(0, 5, label.size))


def repeated(*labels: np.ndarray) -> ReadAgain:
    """Second readings of the base labels; nothing else is accepted in the round."""
    return lambda new: labels


@pytest.mark.slow
def test_a_paraphrase_is_mostly_not_accepted_beside_the_parameter_it_paraphrases() -> None:
    """Read with kappa .7, another reading of what is accepted enters nearly every time; held against a second reading mostly not."""
    n, with_repeat, without = 12, 0, 0
    for seed in range(n):
        contrast, labels = world(seed, (0.9,), n_prompts=16, n_each=20)
        rng = np.random.default_rng([44, seed])
        first, second, paraphrase = (misread(labels["p0"], 0.7, rng) for _ in range(3))
        given = (contrast, [first], {"q": paraphrase}, {"q": "q"}, AGENT, 2)
        without += bool(decide(*given, np.random.default_rng(seed))[0])
        with_repeat += bool(decide(*given, np.random.default_rng(seed), repeated(second))[0])
    assert without >= n - 1
    assert with_repeat <= n // 4


def test_a_second_discovery_survives_a_judge_that_errs() -> None:
    """Another parameter that moved too is still accepted beside one read with error; 8 worlds."""
    found = 0
    for seed in range(8):
        contrast, labels = world(seed, (0.9, 0.6), n_prompts=16, n_each=20)
        rng = np.random.default_rng([45, seed])
        first, second, other = (misread(labels[i], 0.7, rng) for i in ("p0", "p0", "p1"))
        given = (contrast, [first], {"p1": other}, {"p1": "p1"}, AGENT, 2)
        found += bool(decide(*given, np.random.default_rng(seed), repeated(second))[0])
    assert found >= 7


def test_the_second_reading_is_asked_for_only_when_something_would_pass() -> None:
    """Judgements cost money: a round in which nothing would be accepted buys no second reading."""
    contrast, labels = world(8, (0.9, 0.0))
    asked: list[list[str]] = []

    def read_again(new: Sequence[str]) -> list[np.ndarray]:
        asked.append(list(new))
        return [labels["p1"], *(labels[i] for i in new)]

    rng = np.random.default_rng(0)
    decide(contrast, [labels["p0"]], {"p1": labels["p1"]}, {"p1": ""}, AGENT, 1, rng, read_again)
    assert asked == []
    decide(contrast, [labels["p1"]], {"p0": labels["p0"]}, {"p0": ""}, AGENT, 1, rng, read_again)
    assert asked == [[]]


def test_a_round_passes_its_level_on_when_all_it_tested_was_accepted() -> None:
    """All accepted, or nothing tested: the next round has it as well; one rejection, and nothing is passed on."""
    contrast, labels = world(0, (0.9, 0.0))
    _, both = decided(contrast, labels)
    moved = both["p0"]
    assert passed_on(0.025, [moved]) == passed_on(0.025, []) == 0.025
    assert passed_on(0.025, list(both.values())) == 0.0
    assert round_level(0.05, 2, passed_on(0.025, [moved])) == pytest.approx(0.0375)
    assert round_level(0.05, 2, 0.0) == pytest.approx(0.0125)


@pytest.mark.parametrize("null", list(product([False, True], repeat=6)))
def test_the_family_keeps_its_level_whichever_rounds_test_what_did_not_move(null: tuple[bool, ...]) -> None:
    """As long as no error is made, the levels of the rounds in which one can be made sum to alpha at most."""
    carried, at_risk = 0.0, 0.0
    for number, one in enumerate(null, 1):
        level = round_level(0.05, number, carried)
        at_risk += level if one else 0.0
        carried = 0.0 if one else level
    assert at_risk <= 0.05
