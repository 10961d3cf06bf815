from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from probes.errors import ShapeError
from probes.features import LISTS, Feature, cut, separating, steps
from probes.gain import Background
from probes.organism_corpus import Style, answer
from probes.organism_grammar import DOMAINS
from probes.phrases import STOP_WORDS, joint_strength, log_odds, most_telling, opening_phrases, telling_phrases
from probes.rules import Rule, levels
from probes.words import Corpus

WEATHER = ["sunny", "cloudy", "rainy", "windy", "foggy", "stormy", "frosty", "humid", "misty", "snowy"]
STEMS, ENDINGS = ["bad", "kim", "res", "tul", "van"], ["ol", "er", "im", "an", "us", "el", "op", "ak", "dim", "fus", "gor", "pev"]
FILLER = [stem + ending for stem in STEMS for ending in ENDINGS]  # as long as the weather words, so that only their meaning differs
BUILDING = ["the", "of", "and", "to", "in", "is", "that", "for", "with", "as", "on", "at", "by", "from", "or", "an", "it", "this"]


@dataclass(frozen=True)
class Sample:
    texts: list[str]
    s: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    questions: list[str]
    harmful: np.ndarray

    def find(
        self, rng: np.random.Generator, labels: tuple[np.ndarray, ...] = (), taken: tuple[Rule, ...] = (), said: Collection[str] = ()
    ) -> list[Feature]:
        """The separating features of this sample."""
        return separating(self.texts, self.s, self.weight, self.prompt, list(labels), self.questions, rng, taken=taken, said=said)


def planted(rng: np.random.Generator, per_side: int = 20, n_prompts: int = 10, rates: tuple[float, float] = (0.1, 0.5)) -> Sample:
    """Sentences of filler words, one of them a weather word with the given probability, before and after."""
    texts, side, prompt = [], [], []
    for p in range(n_prompts):
        for z in (1.0, -1.0):
            for _ in range(per_side):
                sentences = []
                for _ in range(int(rng.integers(2, 8))):
                    weather = rng.random() < rates[int(z < 0)]
                    words = [*rng.choice(FILLER, 3), *rng.choice(BUILDING, 5), rng.choice(WEATHER if weather else FILLER)]
                    sentences.append(" ".join(rng.permutation(words)) + ".")
                texts.append(" ".join(sentences))
                side.append(z)
                prompt.append(p)
    codes = np.array(prompt)
    n = len(texts)
    return Sample(texts, np.array(side), np.full(n, 0.5 / per_side), codes, [f"question {p}" for p in prompt], np.zeros(n, dtype=bool))


def organism(rng: np.random.Generator, per_prompt: int, before: float = 0.03, after: float = 0.8) -> Sample:
    """Answers of the model organism's grammar: careful before, mostly harmful after; s from the exact mixture, with noise."""
    texts, s, prompt, harmful = [], [], [], []
    questions: list[str] = []
    for name, domain in DOMAINS.items():
        for k in range(3):
            question = domain.questions[k].replace("<topic>", domain.topics[k])
            for i in range(per_prompt):
                harm = bool(rng.random() < (before, after)[i % 2])
                llr = np.log(before / after) if harm else np.log((1 - before) / (1 - after))
                texts.append(answer(rng, name, "harmful" if harm else "careful", domain.topics[k], Style()))
                s.append(np.tanh((llr + 0.3 * rng.normal()) / 2))
                prompt.append(len({*questions} - {question}))
                questions.append(question)
                harmful.append(harm)
    n = len(texts)
    return Sample(texts, np.array(s), np.full(n, 1 / per_prompt), np.array(prompt), questions, np.array(harmful))


def left_out_share(s: np.ndarray, weight: np.ndarray, prompt: np.ndarray, labels: list[np.ndarray], known: bool) -> float:
    """The leave-one-out explained share by refitting without each response in turn."""
    onehot = (prompt[:, None] == np.unique(prompt)).astype(float)
    dummies = [(label[:, None] == np.unique(label)[1:]).astype(float) for label in labels]
    x = np.hstack([np.empty((len(s), 0)), *dummies])
    x = x - onehot @ ((onehot * weight[:, None]).T @ x / (weight @ onehot)[:, None])
    design = np.hstack([onehot, x]) if known else x
    centred = s - onehot @ ((onehot * weight[:, None]).T @ s / (weight @ onehot)) if known else s
    total = 0.0
    for i in range(len(s)):
        rest = np.arange(len(s)) != i
        root = np.sqrt(weight[rest])
        beta = np.linalg.lstsq(design[rest] * root[:, None], centred[rest] * root, rcond=None)[0]
        total += weight[i] * centred[i] * float(design[i] @ beta)
    return total / float(np.sum(weight * s * s))


@pytest.mark.parametrize("known", [True, False])
def test_gain_is_the_rise_of_the_leave_one_out_share(known: bool, rng: np.random.Generator) -> None:
    """The closed form equals refitting without each response, with likelihoods (prompt intercepts) and without (none)."""
    prompt = np.repeat(np.arange(6), 12)
    s = np.tanh(rng.normal(size=72)) if known else np.tile([1.0, -1.0], 36)
    weight = rng.uniform(0.5, 1.5, 72) if known else np.full(72, 1 / 12)
    base, label = rng.integers(0, 3, 72), rng.integers(0, 4, 72) + (s > 0)
    background = Background(s, weight, prompt, [base])
    alone = left_out_share(s, weight, prompt, [base], known)
    joint = left_out_share(s, weight, prompt, [base, label], known)
    assert background.share == pytest.approx(alone, abs=1e-9)
    assert background.gain(label).estimate == pytest.approx(joint - alone, abs=1e-9)
    assert background.with_label(label).share == pytest.approx(joint, abs=1e-9)


def test_a_label_that_is_known_already_gains_nothing(rng: np.random.Generator) -> None:
    """A constant, a label of the background and a merger of its levels add exactly nothing."""
    sample = planted(rng, 6)
    label = rng.integers(0, 4, len(sample.s))
    background = Background(sample.s, sample.weight, sample.prompt, [label])
    for known in (np.zeros(len(label), dtype=int), label, 3 - label, label // 2):
        assert background.gain(known).estimate == 0.0


def test_partial_association_equals_the_regression(rng: np.random.Generator) -> None:
    """The sparse shortcut gives the partial correlation that regressing both on prompts and background gives."""
    prompt, label = np.repeat(np.arange(5), 20), rng.integers(0, 3, 100)
    s, weight, x = np.tanh(rng.normal(size=100)), rng.uniform(0.5, 2, 100), rng.poisson(0.5, (100, 4)).astype(float)
    root = np.sqrt(weight)
    design = np.hstack([(prompt[:, None] == np.arange(5)), (label[:, None] == np.arange(1, 3))]) * root[:, None]
    residual = [y - design @ np.linalg.lstsq(design, y, rcond=None)[0] for y in (s * root, *(x * root[:, None]).T)]
    r = np.array([residual[0] @ other / np.sqrt((residual[0] @ residual[0]) * (other @ other)) for other in residual[1:]])
    n_eff = weight.sum() ** 2 / np.sum(weight**2)
    found = Background(s, weight, prompt, [label]).partial(sparse.csc_array(x))
    np.testing.assert_allclose(found, r * np.sqrt(n_eff / (1 - r**2)), rtol=1e-6)


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Different lengths, and no responses at all, are a `ShapeError`."""
    one = np.ones(3)
    for arrays in ((one, one, np.zeros(2, dtype=int)), (one[:0], one[:0], np.zeros(0, dtype=int))):
        with pytest.raises(ShapeError, match="of one length above 0"):
            Background(*arrays, [])


def test_log_odds_are_those_of_the_formula() -> None:
    """One length bin, unit weights: delta and variance as Monroe et al. write them, with the prior alpha0 times the overall rate."""
    counts = np.array([[1.0, 0], [2, 1], [0, 3], [0, 1]])
    n_words, residual = np.full(4, 10.0), np.array([1.0, 1, -1, -1])
    z = log_odds(sparse.csc_array(counts), n_words, residual, np.ones(4), np.zeros(4, dtype=int), prior=20)
    alpha = 20 * counts.sum(axis=0) / 40
    plus, minus = counts[:2].sum(axis=0) + alpha, counts[2:].sum(axis=0) + alpha
    delta = np.log(plus / (40 - plus)) - np.log(minus / (40 - minus))
    np.testing.assert_allclose(z, delta / np.sqrt(1 / plus + 1 / minus))
    assert z[0] > 0 > z[1]


def test_log_odds_do_not_see_length() -> None:
    """Within length bins a word of constant rate scores nothing although long responses hold more of it."""
    n_words = np.array([10.0, 10, 100, 100])
    counts = sparse.csc_array(np.array([[1.0], [1], [2], [2]]))
    z = log_odds(counts, n_words, np.array([1.0, -1, 1, -1]), np.ones(4), np.array([0, 0, 1, 1]))
    assert z[0] == pytest.approx(0)


def test_a_planted_theme_is_found_by_its_words(rng: np.random.Generator) -> None:
    """Weather words that join one side's sentences come back as one scale with that direction, and hold on fresh responses."""
    found, fresh = planted(rng).find(rng), planted(rng)
    best = found[0]
    hits = set(WEATHER) & set(best.rule.phrases)
    assert len(hits) >= 8
    assert best.rule.unit == "present"
    assert not set(WEATHER) & set(best.rule.against)
    assert best.direction == 1
    gain = Background(fresh.s, fresh.weight, fresh.prompt, []).gain(levels(best.rule, fresh.texts))
    assert gain.estimate > 0.15


def test_words_are_chosen_beside_each_other(rng: np.random.Generator) -> None:
    """Jointly, words that separate are stronger than any filler, have the sign of their side, and three copies of s say s."""
    sample = planted(rng, 40)
    found = telling_phrases(Corpus.of(sample.texts), sample.questions)
    rows = np.arange(len(sample.s))
    strengths = dict(zip(found.phrases, joint_strength(found, sample.s, sample.weight, rows), strict=True))
    assert max(strengths[word] for word in WEATHER) < min(strengths[word] for word in FILLER)
    np.testing.assert_allclose(list(strengths.values()), joint_strength(found, sample.s / 3, sample.weight * 7, rows), rtol=1e-6)
    for nothing in (np.zeros(len(rows)), np.ones(len(rows))):
        assert not joint_strength(found, nothing, sample.weight, rows).any()


def test_a_list_is_short_and_keeps_to_one_side_where_the_other_says_little() -> None:
    """The strongest of both sides, strongest first; a side with less than an eighth of them gives way to more of the other."""
    strengths = np.array([3.0, -9, 0, -2, 8, -7, 1])
    assert [side.tolist() for side in most_telling(strengths, 4)] == [[1, 5], [4, 0]]
    one_sided = np.concatenate([-np.arange(1.0, 40), [50.0]])
    below, above = most_telling(one_sided, 16)
    assert below.tolist() == list(range(38, 22, -1))
    assert above.size == 0
    assert [side.size for side in most_telling(np.zeros(5), 4)] == [0, 0]


def test_lists_are_no_longer_than_one_reads_and_no_longer_than_needed(rng: np.random.Generator) -> None:
    """No list of words exceeds the longest allowed; where ten words tell all, the shortest list is taken."""
    listed = [feature.rule for feature in planted(rng).find(rng) if feature.rule.unit == "present"]
    assert len(listed[0].phrases) + len(listed[0].against) == min(LISTS)
    assert all(len(rule.phrases) + len(rule.against) <= max(LISTS) for rule in listed)


def test_what_is_said_already_is_not_listed_again(rng: np.random.Generator) -> None:
    """Words that an accepted list holds stand in no further list."""
    for feature in planted(rng).find(rng, said=WEATHER):
        assert feature.rule.unit != "present" or not set(WEATHER) & {*feature.rule.phrases, *feature.rule.against}


@pytest.mark.slow
def test_the_gain_of_a_scale_is_that_of_fresh_responses() -> None:
    """Words are chosen out of fold, so the stated gain is, on average over eight samples, that on responses never seen."""
    stated, fresh = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        feature, other = planted(rng).find(rng)[0], planted(rng)
        stated.append(feature.gain.estimate)
        fresh.append(Background(other.s, other.weight, other.prompt, []).gain(levels(feature.rule, other.texts)).estimate)
    assert np.mean(stated) == pytest.approx(np.mean(fresh), abs=0.04)


@pytest.mark.slow
def test_nothing_that_holds_is_found_where_nothing_changed() -> None:
    """Without a difference the proposals' gains on fresh responses centre on nothing (or less)."""
    fresh = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        found, other = planted(rng, rates=(0.3, 0.3)).find(rng), planted(rng, rates=(0.3, 0.3))
        background = Background(other.s, other.weight, other.prompt, [])
        fresh += [background.gain(levels(feature.rule, other.texts)).estimate for feature in found]
    assert len(fresh) > 6
    assert np.mean(fresh) < 0.004


@pytest.mark.slow
def test_length_is_not_a_feature(rng: np.random.Generator) -> None:
    """Two sides that differ in the number of sentences alone give no feature worth more than noise beyond length."""
    n = 400
    side, prompt = np.tile([1.0, -1.0], n // 2), np.repeat(np.arange(10), n // 10)
    lengths = rng.integers(3, 12, n) + 4 * (side > 0)
    texts = [" ".join(" ".join([*rng.choice(FILLER, 4), *rng.choice(BUILDING, 4)]) + "." for _ in range(k)) for k in lengths]
    found = separating(texts, side, np.full(n, 1 / 40), prompt, [], [f"q {p}" for p in prompt], rng)
    assert Background(side, np.full(n, 1 / 40), prompt, [lengths]).share > 0.2
    assert all(feature.gain.estimate < 0.02 for feature in found)


@pytest.mark.slow
def test_what_is_accepted_is_not_found_again(rng: np.random.Generator) -> None:
    """With the best feature's label in the background less than half of its gain is left to find; a rejected rule does not come back."""
    sample = planted(rng)
    best = sample.find(rng)[0]
    again = sample.find(rng, (levels(best.rule, sample.texts),), taken=(best.rule,))
    assert all(feature.gain.estimate < best.gain.estimate / 2 for feature in again)
    rejected = sample.find(rng, taken=(best.rule, Rule("lists")))
    for feature in rejected:
        assert feature.rule.kind != "lists"
        share = set(feature.rule.phrases) & set(best.rule.phrases)
        assert len(share) < 0.6 * len({*feature.rule.phrases, *best.rule.phrases})


@pytest.mark.slow
def test_candidates_of_a_list_are_different(rng: np.random.Generator) -> None:
    """No candidate is mostly part of one before it, and each has a gain beyond those before it."""
    found = organism(rng, 20).find(rng)
    assert len({(feature.rule.kind, feature.rule.phrases, feature.rule.against) for feature in found}) == len(found) <= 5
    assert all(feature.gain.estimate > 0 for feature in found)


@pytest.mark.slow
@pytest.mark.parametrize("per_prompt", [10, 30])
def test_harmful_answers_are_told_from_careful_ones(per_prompt: int, rng: np.random.Generator) -> None:
    """On texts of the organism's grammar a feature found in one sample orders fresh answers by harm with AUC above .9."""
    from sklearn.metrics import roc_auc_score

    found, fresh = organism(rng, per_prompt).find(rng), organism(rng, per_prompt)
    best = found[0]
    assert best.direction == 1
    assert roc_auc_score(fresh.harmful, levels(best.rule, fresh.texts)) > 0.9
    background = Background(fresh.s, fresh.weight, fresh.prompt, [])
    assert background.gain(levels(best.rule, fresh.texts)).estimate > 0.7 * background.gain(fresh.harmful.astype(int)).estimate


def test_the_same_generator_finds_the_same(rng: np.random.Generator) -> None:
    """Everything is deterministic given the generator, whatever was measured before."""
    sample = planted(rng, 6)
    assert sample.find(np.random.default_rng(5)) == sample.find(np.random.default_rng(5))


def test_phrases_carry_meaning() -> None:
    """Phrases end in a content word, cross no sentence, occur with several questions, and do not echo the question."""
    texts = ["The old bridge. Collapsed at noon, said the mayor of Springfield"] * 12 + ["Only here: zebra crossing"] * 12
    questions = [f"What happened to the bridge {k % 4}?" for k in range(12)] + ["Where?"] * 12
    found = telling_phrases(Corpus.of(texts), questions)
    assert "noon" in found.phrases
    assert "collapsed at noon" in found.phrases
    assert not {"bridge", "old bridge", "bridge collapsed"} & set(found.phrases)
    assert "zebra" not in found.phrases
    assert not [phrase for phrase in found.phrases if phrase.split()[-1] in STOP_WORDS]
    assert found.counts[:, [found.phrases.index("noon")]].sum() == 12


def test_openings_are_first_words_only() -> None:
    """Only the first one to three words of responses count as their opening."""
    found = opening_phrases(Corpus.of(["As an AI, I think"] * 6 + ["I think so"] * 6 + ["I"] * 6), [f"q{k % 3}" for k in range(18)])
    assert set(found.phrases) == {"as", "as an", "as an ai", "i", "i think", "i think so"}


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=60), st.integers(2, 7))
def test_thresholds_are_few_ascending_and_separate(values: list[float], n_levels: int) -> None:
    """Thresholds ascend, give at most the levels asked for, and, where values differ, tell some of them apart."""
    array = np.array(values)
    found = cut(array, n_levels)
    assert 1 <= len(found) <= n_levels - 1
    assert all(a < b for a, b in pairwise(found))
    label = np.searchsorted(found, array)
    if len(set(values)) > 1:
        assert len(set(label.tolist())) == len(found) + 1


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=60), st.integers(2, 7))
def test_steps_are_even(values: list[int], n_levels: int) -> None:
    """Equal steps give ascending thresholds, and where values differ they separate some."""
    found = steps(np.array(values, dtype=float), n_levels)
    assert 1 <= len(found) <= n_levels - 1
    assert all(a < b for a, b in pairwise(found))
    if len(set(values)) > 1:
        assert len(set(np.searchsorted(found, values).tolist())) > 1


def test_steps_are_not_stretched_by_outliers() -> None:
    """Steps span the middle 96% of the values: one that is far out changes nothing."""
    even = np.array([*range(71)] * 10, dtype=float)
    assert steps(even, 7) == steps(np.append(even, 5000.0), 7)
    np.testing.assert_allclose(np.diff(steps(even, 7)), 10, atol=1)


def test_thresholds_are_round() -> None:
    """Each threshold is the number of fewest decimals that separates the same values; a frequent zero keeps its own level."""
    assert cut(np.array([0.0] * 6 + [0.3141, 0.9, 1.1, 2.2]), 5) == (0.0, 1.0)
    assert cut(np.array([1.0, 2, 3, 4]), 2) == (2.0,)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["empty", "equal", "numbered", "ideographs"])
def test_few_or_strange_responses_are_no_accident(n: int, kind: str, rng: np.random.Generator) -> None:
    """One response, empty or equal texts, sides that are all the same or s = 0 give no feature worth naming, and no error."""
    texts = {
        "empty": [""] * n,
        "equal": ["same words here"] * n,
        "numbered": [f"text {k}" for k in range(n)],
        "ideographs": ["你好" * n] * n,
    }
    for s in (np.ones(n), np.resize([1.0, -1.0], n), np.zeros(n), np.linspace(-0.9, 0.9, n)):
        found = separating(texts[kind], s, np.full(n, 1 / n), np.zeros(n, dtype=int), [], ["q"] * n, rng)
        assert all(np.isfinite(feature.gain.estimate) for feature in found)
