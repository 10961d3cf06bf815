"""Features of the text that separate *before* from *after* beyond length and beyond what is already explained.

Candidates are the built-in `probes.rules.RULES`; unions of their word lists ("themes"); scales of the words and phrases that
separate, all together or those that keep company; lists of words chosen jointly, of which the different ones present are
counted; and the words that responses open with. Whatever is chosen by looking at s
(words, themes and their signs) is chosen out of fold, so that a feature's gain (`probes.gain`) is that of responses which had
no say in choosing it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from probes.gain import Background, Gain
from probes.lexicon import LEXICON
from probes.phrases import (
    MIN_T,
    Phrases,
    companies,
    joint_strength,
    most_telling,
    opening_phrases,
    strength,
    strongest,
    telling_phrases,
)
from probes.rules import RULES, Rule, Unit, levels, measure
from probes.words import Corpus

N_FOLDS = 4
N_LEVELS = (5, 7)
POLES = (16, 32, 64)  # words on each side of a scale of all that separates
LISTS = (16, 32, 64)  # words in a list, both sides together: as many as one reads
FRUGAL = 0.9  # a shorter list is preferred that gains this part of what the best one gains
MIN_PHRASES = 5  # fewer are a turn of phrase, no scale
MAX_THEMES = 5
THEME_T = 2.0  # t that a theme must add to join
LENGTH_BINS = 24  # as many as leave 25 responses in each; fewer let a reading of length pass for more than length
SAME_PHRASES, SAME_LABELS = 0.6, 0.9  # from here: a rule is the same as one that was decided on
CONTAINED = 0.7  # from here: a rule is part of another of the same list of candidates
PLAIN = 1.15  # a rule with a name is worth this much more than words found one by one: it says what it measures
HAIR = 0.002  # a gain that is better by less than this is not better
# Lists of words that sentences cannot do without: a union with them would measure the language, not a theme.
NO_THEMES = frozenset({"english", "opening acknowledgement"})


@dataclass(frozen=True)
class Feature:
    """A separating feature of the text.

    Attributes:
        rule: Its exact rule; for scales of words `phrases` are those that became more frequent, strongest first.
        name: Key of `probes.rules.RULES`; None for a scale found in these responses.
        themes: Names of the word lists that make up `rule.phrases` and `rule.against`; empty for words found one by one.
        gain: Its gain beyond the background and the features listed before it.
        direction: Sign of the change of its expected level, after minus before.
    """

    rule: Rule
    name: str | None
    themes: tuple[tuple[str, ...], ...]
    gain: Gain
    direction: int


@dataclass(frozen=True, eq=False)
class _Candidate:
    rule: Rule
    name: str | None
    themes: tuple[tuple[str, ...], ...]
    label: np.ndarray  # (n,) levels, each from a rule that this response had no say in


@dataclass(frozen=True, eq=False)
class _Sample:
    corpus: Corpus
    s: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    questions: Sequence[str]
    labels: Sequence[np.ndarray]
    phrases: Phrases
    background: Background
    fold: np.ndarray

    def without(self, fold: int) -> Background:
        """The background as it looks without one fold."""
        rows = self.fold != fold
        return Background(self.s[rows], self.weight[rows], self.prompt[rows], [label[rows] for label in self.labels])


def separating(
    texts: Iterable[str],
    s: np.ndarray,
    weight: np.ndarray,
    prompt: np.ndarray,
    labels: Sequence[np.ndarray],
    questions: Sequence[str],
    rng: np.random.Generator,
    *,
    n: int = 5,
    taken: Sequence[Rule] = (),
    said: Collection[str] = (),
) -> list[Feature]:
    """The features that add most to what `labels` explain of `s`, each beyond those listed before it.

    Args:
        texts: n responses.
        s: `(n,)` in [-1, 1], > 0 more probable before.
        weight: `(n,)` > 0.
        prompt: `(n,)` int codes.
        labels: What is accounted for, each `(n,)` int. Length is accounted for in any case.
        questions: `(n,)` what each response answers.
        rng: Splits the folds.
        n: How many at most.
        taken: Rules that must not come back, nor anything that labels these responses like them.
        said: Phrases of what `labels` say already: no list of words holds them again.

    Raises:
        ShapeError: The arrays do not fit together.
    """
    corpus = Corpus.of(texts)
    labels = [_length_bins(corpus.n_words), *labels]
    background = Background(s, weight, prompt, labels)
    phrases = telling_phrases(corpus, questions)
    sample = _Sample(corpus, s, weight, prompt, questions, labels, phrases, background, _folds(s, prompt, rng))
    candidates = [*_built_in(sample), *_themes(sample), *_scales(sample), *_lists(sample, said), *_openings(sample)]
    old = [(rule, levels(rule, corpus)) for rule in taken]
    fresh = [c for c in candidates if not any(_same(c.rule, rule) or _alike(levels(c.rule, corpus), label) for rule, label in old)]
    chosen: list[Feature] = []
    while fresh and len(chosen) < n:
        gains = [background.gain(candidate.label) for candidate in fresh]
        best = max(range(len(fresh)), key=lambda k: gains[k].cautious * (PLAIN if fresh[k].name or fresh[k].themes else 1))
        if gains[best].estimate <= 0 or (chosen and gains[best].cautious <= 0):
            break
        winner = fresh[best]
        change = -float(np.sum(weight * s * levels(winner.rule, corpus)))
        chosen.append(Feature(winner.rule, winner.name, winner.themes, gains[best], int(np.sign(change))))
        background = background.with_label(winner.label)
        fresh = [c for c, gain in zip(fresh, gains, strict=True) if gain.estimate > 0 and _shared(c.rule, winner.rule, min) < CONTAINED]
    return chosen


def _length_bins(n_words: np.ndarray) -> np.ndarray:
    bins = int(np.clip(len(n_words) // 25, 1, LENGTH_BINS))
    return np.searchsorted(np.quantile(n_words, np.arange(1, bins) / bins), n_words)


def _folds(s: np.ndarray, prompt: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    fold = np.empty(len(s), dtype=np.int64)
    order = np.lexsort((rng.random(len(s)), s > 0, prompt))
    fold[order] = (np.arange(len(s)) + rng.integers(N_FOLDS)) % N_FOLDS
    return fold


def _same(one: Rule, other: Rule) -> bool:
    """Whether rules share most of their phrases, or most of those of one side (the other may hold what separates by accident)."""
    sides = [(set(a), set(b)) for a in (one.phrases, one.against) for b in (other.phrases, other.against)]
    sides = [(a, b) for a, b in sides if one.kind == other.kind and min(len(a), len(b)) >= MIN_PHRASES]
    return _shared(one, other, max) >= SAME_PHRASES or any(len(a & b) >= SAME_PHRASES * max(len(a), len(b)) for a, b in sides)


def _shared(one: Rule, other: Rule, of: Callable[[int, int], int]) -> float:
    """Part of the phrases of the smaller (`of=min`) or larger (`max`) rule that the other has too, turned round if need be."""
    if one.kind != other.kind:
        return 0.0
    if not (one.phrases or one.against):
        return 1.0
    mine = {(phrase, 1) for phrase in one.phrases} | {(phrase, -1) for phrase in one.against}
    straight = {(phrase, 1) for phrase in other.phrases} | {(phrase, -1) for phrase in other.against}
    turned = {(phrase, -sign) for phrase, sign in straight}
    return max(len(mine & straight), len(mine & turned)) / of(len(mine), len(straight))


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return False
    return bool(abs(np.corrcoef(one, other)[0, 1]) >= SAME_LABELS)


def _built_in(sample: _Sample) -> Iterator[_Candidate]:
    """Each rule of `RULES`, levels cut at quantiles of these responses (which do not look at s), in its better unit."""
    for name, rule in RULES.items():
        # A count of common words would be another reading of length: such rules keep their rate.
        units: tuple[Unit, ...] = ("count", "per 100 words") if rule.unit == "count" and rule.kind != "opening" else (rule.unit,)
        options = []
        for unit in units:
            values = measure(replace(rule, unit=unit), sample.corpus)
            for n_levels in N_LEVELS:
                fitted = replace(rule, unit=unit, thresholds=cut(values, n_levels))
                options.append(_Candidate(fitted, name, (), np.searchsorted(fitted.thresholds, values)))
        yield _best(sample, options)


def _best(sample: _Sample, options: Sequence[_Candidate]) -> _Candidate:
    # The first (fewer levels, plainer unit) unless another is better by more than a hair.
    gains = [sample.background.gain(option.label).estimate for option in options]
    best = int(np.argmax(gains))
    return options[0] if gains[best] - gains[0] < HAIR else options[best]


_Choice = tuple[Rule, tuple[tuple[str, ...], ...]]
"""A rule without thresholds, and the themes of its poles."""


def _themes(sample: _Sample) -> Iterator[_Candidate]:
    """The union of word lists "A and B against C" that separates best, added one by one."""
    names = [name for name in LEXICON if name not in NO_THEMES]
    rates = np.stack([measure(replace(RULES[name], unit="per 100 words"), sample.corpus) for name in names], axis=1)
    rates = np.minimum(rates, np.quantile(rates, 0.98, axis=0))

    def choose(rows: np.ndarray, background: Background) -> list[_Choice | None]:
        signs = _forward(rates[rows], background)
        after, before = (tuple(names[k] for k in signs if signs[k] == sign) for sign in (-1, 1))
        if len(signs) < 2:
            return [None, None]
        phrases, against = (tuple(dict.fromkeys(word for name in pole for word in LEXICON[name])) for pole in (after, before))
        themes = tuple(pole for pole in (after, before) if pole)
        units: tuple[Unit, ...] = ("per 100 words", "count")
        return [(Rule("phrases", phrases, against, unit=unit), themes) for unit in units]

    return filter(None, _out_of_fold(sample, choose))


def _forward(x: np.ndarray, background: Background) -> dict[int, int]:
    """Columns of `x` and signs (+1: before) whose signed sum goes best with what is unexplained; each must add a t of THEME_T."""
    beyond, y = background.beyond(x), background.residual * np.sqrt(background.weight)
    gram, with_y = beyond.T @ beyond, beyond.T @ y
    n_eff = background.weight.sum() ** 2 / np.sum(background.weight**2)
    signs: dict[int, int] = {}
    explained = 0.0
    while len(signs) < MAX_THEMES:
        options = {}
        for k in range(x.shape[1]):
            for sign in (1, -1):
                vector = np.zeros(x.shape[1])
                for column, of_column in {**signs, k: sign}.items():
                    vector[column] = of_column
                norm = float(vector @ gram @ vector)
                if k not in signs and norm > 1e-12 and vector @ with_y > 0:
                    options[k, sign] = float(vector @ with_y) ** 2 / norm
        best = max(options, key=lambda option: options[option], default=None)
        if best is None or (options[best] - explained) * n_eff < THEME_T**2 * max(float(y @ y), 1e-300):
            break
        explained = options[best]
        signs[best[0]] = best[1]
    return signs


def _scales(sample: _Sample) -> Iterator[_Candidate]:
    """Scales "A words against B words": of everything that separates, and of each company that phrases keep."""
    found = sample.phrases
    everything = np.arange(len(found.phrases))
    groups = [(everything, size) for size in POLES] + [(group, POLES[0]) for group in companies(found, sample.background)]

    def choose(rows: np.ndarray, background: Background) -> list[_Choice | None]:
        strengths = strength(found, sample.corpus.n_words, background, sample.labels[0], rows)
        return [_poles(found, strengths, group, size, "phrases", "per 100 words") for group, size in groups]

    return filter(None, _out_of_fold(sample, choose))


def _lists(sample: _Sample, said: Collection[str]) -> Iterator[_Candidate]:
    """Scales "different words of A present less those of B", all words chosen together; of each kind the shortest that does."""
    fresh = np.array([phrase not in said for phrase in sample.phrases.phrases], dtype=bool)

    def choose(rows: np.ndarray, background: Background) -> list[_Choice | None]:
        fits = (
            joint_strength(sample.phrases, sample.s[rows], background.weight, rows),
            joint_strength(sample.phrases, background.residual, background.weight, rows),
        )
        return [_list(sample.phrases, strengths * fresh, size) for strengths in fits for size in LISTS]

    found = _out_of_fold(sample, choose)
    for start in range(0, len(found), len(LISTS)):
        options = [candidate for candidate in found[start : start + len(LISTS)] if candidate is not None]
        gains = [sample.background.gain(option.label).estimate for option in options]
        yield from [option for option, gain in zip(options, gains, strict=True) if gain >= FRUGAL * max(gains)][:1]


def _list(found: Phrases, strengths: np.ndarray, size: int) -> _Choice | None:
    after, before = (tuple(found.phrases[k] for k in pole) for pole in most_telling(strengths, size))
    return (Rule("phrases", after, before, unit="present"), ()) if len(after) + len(before) >= MIN_PHRASES else None


def _openings(sample: _Sample) -> Iterator[_Candidate]:
    """How responses open: first words that became more frequent against those that became less so."""
    found = opening_phrases(sample.corpus, sample.questions)

    def choose(rows: np.ndarray, background: Background) -> list[_Choice | None]:
        t = background.partial(found.rows(rows))
        return [_poles(found, np.where(np.abs(t) >= MIN_T, t, 0.0), np.arange(len(t)), POLES[0], "opening", "count")]

    return filter(None, _out_of_fold(sample, choose))


def _poles(found: Phrases, strengths: np.ndarray, group: np.ndarray, size: int, kind: str, unit: Unit) -> _Choice | None:
    after, before = (tuple(found.phrases[k] for k in strongest(sign * strengths, group, found, size)) for sign in (-1, 1))
    return (Rule(kind, after, before, unit=unit), ()) if len(after) + len(before) >= MIN_PHRASES else None


_Cut = Callable[[np.ndarray, int], tuple[float, ...]]


def _cuts(unit: Unit) -> list[tuple[_Cut, int]]:
    """Ways to cut values into levels: numbers of different words, spread out as they are, in equal steps."""
    return [(steps, max(N_LEVELS))] if unit == "present" else [(cut, n_levels) for n_levels in N_LEVELS]


def _out_of_fold(sample: _Sample, choose: Callable[[np.ndarray, Background], list[_Choice | None]]) -> list[_Candidate | None]:
    """Candidates for what `choose` finds in everything, each response labelled by what it finds without that response's fold."""
    choices = choose(np.arange(len(sample.corpus)), sample.background)
    labels = [np.zeros((len(_cuts(choice[0].unit)) if choice else 0, len(sample.corpus)), dtype=np.int64) for choice in choices]
    for fold in range(N_FOLDS if any(choices) else 0):
        rows, left_out = np.flatnonzero(sample.fold != fold), np.flatnonzero(sample.fold == fold)
        if not len(rows) or not len(left_out):
            continue
        for k, choice in enumerate(choose(rows, sample.without(fold))):
            if choice is not None and choices[k] is not None:
                values = measure(choice[0], sample.corpus)
                for j, (way, n_levels) in enumerate(_cuts(choice[0].unit)):
                    labels[k][j, left_out] = np.searchsorted(way(values[rows], n_levels), values[left_out])
    candidates: list[_Candidate | None] = [None] * len(choices)
    for k, (choice, label) in enumerate(zip(choices, labels, strict=True)):
        if choice is not None:
            rule, themes = choice
            if not rule.phrases:
                rule = replace(rule, phrases=rule.against, against=())
            values = measure(rule, sample.corpus)
            rules = [replace(rule, thresholds=way(values, n_levels)) for way, n_levels in _cuts(rule.unit)]
            options = [_Candidate(one, None, themes, of_one) for one, of_one in zip(rules, label, strict=True)]
            candidates[k] = _best(sample, options)
    return candidates


def cut(values: np.ndarray, n_levels: int) -> tuple[float, ...]:
    """At most `n_levels - 1` thresholds at quantiles of `values`, each the roundest number that separates the same values.

    Where one value (often 0) holds much of the mass there are fewer.
    """
    found = np.unique(values)
    if len(found) < 2:
        return (float(found[0]) if len(found) else 0.0,)
    at = np.quantile(values, np.arange(1, n_levels) / n_levels, method="inverted_cdf")
    lower = np.unique(np.searchsorted(found, at[at < found[-1]]))
    if not len(lower):
        lower = np.array([len(found) - 2])
    return tuple(_round_between(float(found[k]), float(found[k + 1])) for k in lower)


def steps(values: np.ndarray, n_levels: int) -> tuple[float, ...]:
    """At most `n_levels - 1` thresholds in equal steps over the middle 96% of `values`, each as round as `cut` makes them."""
    found = np.unique(values)
    if len(found) < 2:
        return cut(values, n_levels)
    low, high = np.quantile(values, [0.02, 0.98])
    at = low + (high - low) * np.arange(1, n_levels) / n_levels
    lower = np.unique(np.clip(np.searchsorted(found, at, side="right") - 1, 0, len(found) - 2))
    return tuple(_round_between(float(found[k]), float(found[k + 1])) for k in lower)


def _round_between(low: float, high: float) -> float:
    """The number with fewest decimals in [low, high)."""
    for decimals in range(7):
        value = np.ceil(low * 10**decimals) / 10**decimals
        if low <= value < high:
            return float(value)
    return low
