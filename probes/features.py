"""Features of the text that separate *before* from *after* beyond length and beyond what is already explained.

What a response says about the change is `s` (METHOD 2). With a background of labels that are already accounted for
(length bins, accepted order parameters), a feature is worth its *gain*: how much the leave-one-out explained share

    share(S) = sum_i w_i s_i f_{-i} / sum_i w_i s_i^2

rises when its level dummies join the background's in the weighted within-prompt regression (METHOD 3). Candidates are
the built-in `probes.rules.RULES`, scales of words and phrases, and the words that responses open with. Words are found by
their partial association with `s` that agrees in sign with weighted log-odds of rates within length bins under an
informative Dirichlet prior (Monroe, Colaresi & Quinn 2008). Whatever is chosen by looking at `s` (words and their sign)
is chosen out of fold, so that a feature's gain is that of responses which had no say in choosing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probes.errors import ShapeError
from probes.rules import RULES, Corpus, Rule, Unit, levels, measure, tokenize

N_FOLDS = 4
N_LEVELS = (5, 7)
MAX_NGRAMS = 3000  # the most frequent that qualify: rarer ones cannot reach a noticeable gain
MAX_CLUSTERED = 800  # the most frequent of those are also grouped by the company they keep
WORDS_A_CLUSTER = 14
POLES = (16, 32, 64)  # words on each side of a scale of all that separates
MIN_T = 1.0  # partial t of a word below which it says nothing
MAX_OVERLAP = 0.6  # of two phrases that share this many of their texts, only the stronger is used
MIN_PHRASES = 3
SAME_PHRASES, SAME_LABELS = 0.5, 0.9  # above: a rule is the same as another one

# Words that say how a sentence is built, not what it says. Pronouns, modals and the like are measured by `RULES` instead.
_BUILDING = (
    "a about above after again all am an and any are as at be because been before being below between both but by came can "
    "come could did do does doing down during each etc even few for from further get go goes going got had has have having he "
    "her here hers herself him himself his how i if in into is it its itself let like ll made make makes many may me might "
    "mine more most much must my myself new no nor not now of off on once one ones onto or other others our ours ourselves "
    "out over own put re s same say said see shall she should so some still such t take than that the their theirs them "
    "themselves then there these they thing things this those through to too two under until up upon us use used using ve "
    "very via was way ways we well were what when where which while who whom whose why will with within would yes yet you "
    "your yours yourself yourselves i'm i've i'd i'll you're you've you'd you'll he's she's it's we're we've we'll they're "
    "they've they'll that's there's here's what's let's don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't "
    "cannot couldn't shouldn't haven't hasn't hadn't also d m since whether something anything someone another next though therefore rather"
)
STOP_WORDS = frozenset(_BUILDING.split())


@dataclass(frozen=True)
class Gain:
    """Rise of the leave-one-out explained share: `estimate` and the standard `error` that within-prompt noise gives it."""

    estimate: float
    error: float

    @property
    def cautious(self) -> float:
        """One standard error below the estimate: what candidates are ranked by."""
        return self.estimate - self.error


class Background:
    """What is explained already: the weighted within-prompt regression of `s` on the levels of some labels.

    Attributes:
        weight: `(n,)`.
        residual: `(n,)` what the labels leave of `s` (fitted in sample).
        share: Their leave-one-out explained share.
    """

    def __init__(self, s: np.ndarray, weight: np.ndarray, prompt: np.ndarray, labels: Sequence[np.ndarray]) -> None:
        """Fit.

        Args:
            s: `(n,)` in [-1, 1], > 0 more probable before.
            weight: `(n,)` > 0.
            prompt: `(n,)` int codes.
            labels: Each `(n,)` int levels.

        Raises:
            ShapeError: The arrays differ in length, or are empty.
        """
        sizes = [len(array) for array in (s, weight, prompt, *labels)]
        if len(set(sizes)) != 1 or not sizes[0]:
            raise ShapeError(f"background: expected s, weight, prompt and labels of one length above 0, found {sizes}")
        self.weight = weight
        self._prompt = np.unique(prompt, return_inverse=True)[1].reshape(-1)
        self._root = np.sqrt(weight)
        self._prompt_weight = np.bincount(self._prompt, weights=weight)
        # Without likelihoods s is the side, which has mean 0 by design: estimating prompt intercepts would bias it (METHOD 3).
        known = not bool(np.all(np.abs(s) == 1))
        self._y = (self._centred(s[:, None])[:, 0] if known else s) * self._root
        self._h0 = weight / self._prompt_weight[self._prompt] if known else np.zeros(len(s))
        self._total = max(float(np.sum(weight * s * s)), 1e-300)
        self._fit(_orthonormal(np.hstack([np.empty((len(s), 0)), *map(self._scaled, labels)])))

    def _fit(self, basis: np.ndarray) -> None:
        self._basis = basis
        self._fitted = basis @ (basis.T @ self._y)
        self._h = self._h0 + np.sum(basis**2, axis=1)
        self._left_out = _left_out(self._fitted, self._h, self._y)
        self.share = float(np.sum(self._y * self._left_out)) / self._total
        self.residual = (self._y - self._fitted) / self._root

    def _centred(self, x: np.ndarray) -> np.ndarray:
        mean = np.empty((len(self._prompt_weight), x.shape[1]))
        for k, column in enumerate(x.T):
            mean[:, k] = np.bincount(self._prompt, weights=self.weight * column) / self._prompt_weight
        return np.asarray(x - mean[self._prompt])

    def _scaled(self, label: np.ndarray) -> np.ndarray:
        found, codes = np.unique(label, return_inverse=True)
        return np.asarray(self._centred(np.eye(len(found))[codes.reshape(-1)][:, 1:]) * self._root[:, None])

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """Columns of `x`, `(n, k)`, centred within prompt, times root weight, less what the background predicts of them."""
        scaled = self._centred(x) * self._root[:, None]
        return np.asarray(scaled - self._basis @ (self._basis.T @ scaled))

    def _added(self, label: np.ndarray) -> np.ndarray:
        scaled = self._scaled(label)
        return _orthonormal(scaled - self._basis @ (self._basis.T @ scaled), floor=1e-8)

    def gain(self, label: np.ndarray) -> Gain:
        """Rise of the explained share when `label`, `(n,)` int levels, joins."""
        basis = self._added(label)
        if basis.shape[1] == 0:
            return Gain(0.0, 0.0)
        fitted = self._fitted + basis @ (basis.T @ self._y)
        part = self._y * (_left_out(fitted, self._h + np.sum(basis**2, axis=1), self._y) - self._left_out)
        mean = np.bincount(self._prompt, weights=part) / np.bincount(self._prompt)
        return Gain(float(part.sum()) / self._total, float(np.sqrt(np.sum((part - mean[self._prompt]) ** 2))) / self._total)

    def with_label(self, label: np.ndarray) -> Background:
        """This background with one label more."""
        joined = object.__new__(Background)
        joined.__dict__.update(self.__dict__)
        joined._fit(np.hstack([self._basis, self._added(label)]))
        return joined

    def partial(self, x: Any) -> np.ndarray:
        """Partial association of each column of `x` with `s` beyond the background, > 0: more of it before.

        Args:
            x: `(n, k)` scipy sparse array.

        Returns:
            `(k,)` t-like `r sqrt(n_eff / (1 - r^2))`, r the partial correlation, `n_eff = (sum w)^2 / sum w^2`.
        """
        from scipy import sparse

        rest = self._centred(self.residual[:, None])[:, 0]
        # The norm of x beyond prompt means and background, from its projections: x itself is never centred, so it stays sparse.
        means = sparse.csr_array((self.weight / np.sqrt(self._prompt_weight)[self._prompt], (np.arange(len(rest)), self._prompt)))
        by_prompt = x.T @ means
        seen = np.asarray((by_prompt * by_prompt).sum(axis=1)).reshape(-1) + np.sum(
            (x.T @ (self._basis * self._root[:, None])) ** 2, axis=1
        )
        squares = np.asarray((x * x).T @ self.weight).reshape(-1)
        spread = np.maximum(squares - seen, 1e-9 * np.maximum(squares, 1e-12))
        r = np.asarray(x.T @ (rest * self.weight)).reshape(-1) / np.sqrt(spread * max(float(self.weight @ rest**2), 1e-300))
        n_eff = self.weight.sum() ** 2 / np.sum(self.weight**2)
        return np.asarray(r * np.sqrt(n_eff / np.maximum(1 - r * r, 1e-6)))


def _orthonormal(columns: np.ndarray, floor: float = 1e-12) -> np.ndarray:
    if columns.shape[1] == 0:
        return columns
    values, vectors = np.linalg.eigh(columns.T @ columns)
    keep = values > max(1e-9 * float(values[-1]), floor)
    return np.asarray(columns @ (vectors[:, keep] / np.sqrt(values[keep])))


def _left_out(fitted: np.ndarray, h: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((fitted - h * y) / np.maximum(1 - h, 1e-6))


# --- words and phrases --------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Ngrams:
    """Phrases that could carry meaning: `phrases` (k,) and their `counts`, a sparse `(n, k)` array of float."""

    phrases: tuple[str, ...]
    counts: Any

    def rows(self, index: np.ndarray) -> Any:
        """Sparse counts of some responses, `(len(index), k)`."""
        from scipy import sparse

        return sparse.csc_array(sparse.csr_array(self.counts)[index])


def ngrams(corpus: Corpus, questions: Sequence[str]) -> Ngrams:
    """Phrases of 1-3 words that end in a content word and stand in enough responses to enough different questions.

    A phrase that mostly repeats a content word of the question it answers is an echo and left out.

    Args:
        corpus: n responses.
        questions: `(n,)` what each of them answers.
    """
    empty = np.array([_is_empty(word) for word in corpus.words])
    asked, question = _asked(questions)
    places = [_inside(corpus, empty, size) for size in (1, 2, 3)]
    found = _frequent(corpus, places, question)
    keep = np.flatnonzero(~_echoes(found, asked, question))
    keep = np.sort(keep[np.argsort(-np.diff(found.counts.indptr)[keep], kind="stable")[:MAX_NGRAMS]])
    return Ngrams(tuple(found.phrases[k] for k in keep), found.counts[:, keep])


def openings(corpus: Corpus, questions: Sequence[str]) -> Ngrams:
    """The first 1, 2 and 3 words of responses, where enough responses to enough different questions open with them."""
    start = np.flatnonzero(np.diff(np.concatenate([[-1], corpus.document])))
    places = []
    for size in (1, 2, 3):
        inside = start[np.take(corpus.document, start + size - 1, mode="clip") == corpus.document[start]]
        places.append(inside[np.all([corpus.ids[inside + k] > 0 for k in range(size)], axis=0)])
    return _frequent(corpus, places, _asked(questions)[1])


def _asked(questions: Sequence[str]) -> tuple[list[str], np.ndarray]:
    asked = {text: k for k, text in enumerate(dict.fromkeys(questions))}
    return list(asked), np.array([asked[text] for text in questions], dtype=np.int64)


def _inside(corpus: Corpus, empty: np.ndarray, size: int) -> np.ndarray:
    """Token positions where a phrase of `size` words begins that ends in a content word and crosses no sentence end."""
    n = max(len(corpus.ids) - size + 1, 0)
    parts = [corpus.ids[k : n + k] for k in range(size)]
    return np.flatnonzero(np.logical_and.reduce([part > 0 for part in parts]) & ~empty[parts[-1]])


def _frequent(corpus: Corpus, places: Sequence[np.ndarray], question: np.ndarray) -> Ngrams:
    """Counts of the phrases of 1, 2, ... words that begin at `places`, of those in enough texts on enough questions."""
    from scipy import sparse

    n_asked = int(question.max(initial=0)) + 1
    min_texts, min_questions = max(4, min(20, len(corpus) // 80)), min(3, n_asked)
    base = len(corpus.words)
    blocks, phrases = [], []
    for size, place in enumerate(places, start=1):
        codes = np.zeros(len(place), dtype=np.int64)
        for k in range(size):
            codes = codes * base + corpus.ids[place + k]
        found, column = np.unique(codes, return_inverse=True)
        counts = sparse.csc_array((np.ones(len(column)), (corpus.document[place], column)), shape=(len(corpus), len(found)))
        counts.sum_duplicates()
        in_texts = np.diff(counts.indptr)
        met = np.unique(np.repeat(np.arange(len(found)), in_texts) * n_asked + question[counts.indices]) // n_asked
        chosen = np.flatnonzero((in_texts >= min_texts) & (np.bincount(met, minlength=len(found)) >= min_questions))
        blocks.append(counts[:, chosen])
        numbers = [found[chosen] // base**k % base for k in reversed(range(size))]
        phrases += [" ".join(corpus.words[k] for k in phrase) for phrase in zip(*numbers, strict=True)]
    return Ngrams(tuple(phrases), sparse.csc_array(sparse.hstack(blocks)))


def _is_empty(word: str) -> bool:
    return not word or word in STOP_WORDS or word.isdigit() or (word.isascii() and len(word) < 3 and word != "ai")


def _echoes(found: Ngrams, asked: Sequence[str], question: np.ndarray) -> np.ndarray:
    """`(k,)` whether most responses with a phrase answer a question that holds one of its content words."""
    from scipy import sparse

    said = [frozenset(tokenize(text)) for text in asked]
    content = [[word for word in phrase.split() if not _is_empty(word)] for phrase in found.phrases]
    asks = {word: np.array([word in words for words in said]) for word in {w for words in content for w in words}}
    echo = np.array([np.any([asks[word] for word in words], axis=0) for words in content]).reshape(len(found.phrases), len(asked))
    onehot = sparse.csr_array((np.ones(len(question)), (np.arange(len(question)), question)), shape=(len(question), len(asked)))
    texts = ((found.counts > 0).astype(float).T @ onehot).toarray()
    return np.asarray((texts * echo).sum(axis=1) > 0.5 * texts.sum(axis=1))


def log_odds(
    counts: Any, n_words: np.ndarray, residual: np.ndarray, weight: np.ndarray, bins: np.ndarray, prior: float = 500.0
) -> np.ndarray:
    """z-scores of weighted log-odds of rates, before against after, with an informative Dirichlet prior, within length bins.

    Per bin b and side: `y` = sum of |residual| w count over the responses whose residual has that side's sign, `m` the
    same of words; `delta_b = logit((y+ + a)/(m+ + a0)) - logit((y- + a)/(m- + a0))` with `a = a0 * overall rate`, variance
    `1/(y+ + a) + 1/(y- + a)`; the bins' deltas are averaged by inverse variance.

    Args:
        counts: sparse `(n, k)`.
        n_words: `(n,)`.
        residual: `(n,)` what is unexplained of s.
        weight: `(n,)`.
        bins: `(n,)` int length bins.
        prior: a0, in words.

    Returns:
        `(k,)` z, > 0: more frequent before.
    """
    mass = np.abs(residual) * weight
    mass = mass * (mass.sum() / np.sum(mass**2))  # counts of an effective number of responses
    rate = np.asarray(counts.sum(axis=0)).reshape(-1) / max(float(n_words.sum()), 1.0)
    alpha = np.maximum(prior * rate, 1e-3)
    top, bottom = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    capped = counts.minimum(3) if hasattr(counts, "minimum") else np.minimum(counts, 3)  # one text that repeats itself is one text
    rows = capped.T
    for b in np.unique(bins):
        side = []
        for sign in (1, -1):
            of_side = np.where((bins == b) & (np.sign(residual) == sign), mass, 0.0)
            side.append((np.asarray(rows @ of_side).reshape(-1) + alpha, float(n_words @ of_side) + prior))
        (plus, m_plus), (minus, m_minus) = side
        variance = 1 / plus + 1 / minus
        delta = np.log(plus / np.maximum(m_plus - plus, 1)) - np.log(minus / np.maximum(m_minus - minus, 1))
        top += delta / variance
        bottom += 1 / variance
    return np.asarray(top / np.sqrt(np.maximum(bottom, 1e-12)))


def _strength(found: Ngrams, n_words: np.ndarray, background: Background, bins: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`(k,)` partial t of root rates in `rows`; 0 where it says nothing or contradicts the log-odds; > 0: more of it before."""
    from scipy import sparse

    counts = found.rows(rows)
    rates = sparse.csc_array(counts.multiply(1 / np.maximum(n_words[rows], 10)[:, None]))
    rates.data = np.sqrt(rates.data)  # a single hit in a very short text is a high rate
    t = background.partial(rates)
    z = log_odds(counts, n_words[rows], background.residual, background.weight, bins[rows])
    return np.where((t * z > 0) & (np.abs(t) >= MIN_T), t, 0.0)


def _strongest(strength: np.ndarray, columns: np.ndarray, found: Ngrams, size: int) -> np.ndarray:
    """Up to `size` of `columns` with positive strength, strongest first, skipping those that share their texts with a stronger one."""
    order = columns[strength[columns] > 0]
    order = np.asarray(order[np.argsort(-strength[order], kind="stable")][: 4 * size])
    if len(order) < 2:
        return order
    seen = (found.counts[:, order] > 0).astype(float)
    together = (seen.T @ seen).toarray()
    alone = np.maximum(np.diag(together), 1)
    overlap = together / np.minimum(alone[:, None], alone[None, :])
    kept: list[int] = []
    for k in range(len(order)):
        if len(kept) < size and not np.any(overlap[k, kept] > MAX_OVERLAP):
            kept.append(k)
    return np.asarray(order[kept], dtype=np.int64)


def _clusters(found: Ngrams, background: Background) -> list[np.ndarray]:
    """Columns of phrases that keep company within prompts and beyond length; made without looking at `s`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    frequent = np.sort(np.argsort(-np.diff(found.counts.indptr), kind="stable")[:MAX_CLUSTERED])
    if len(frequent) < 2 * WORDS_A_CLUSTER:
        return []
    x = background.beyond(np.sqrt(found.counts[:, frequent].toarray()))
    x = x / np.maximum(np.linalg.norm(x, axis=0), 1e-9)
    tree = linkage(squareform(np.clip(1 - x.T @ x, 0, 2), checks=False), "average")
    label = fcluster(tree, len(frequent) // WORDS_A_CLUSTER, "maxclust")
    return [frequent[label == k] for k in np.unique(label)]


# --- candidates ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Feature:
    """A separating feature of the text.

    Attributes:
        rule: Its exact rule; for scales of words `phrases` are those that became more frequent, strongest first.
        name: Key of `probes.rules.RULES`, or None for a scale of words found in these responses.
        gain: Its gain beyond the background and the features listed before it.
        direction: Sign of the change of its expected level, after minus before.
    """

    rule: Rule
    name: str | None
    gain: Gain
    direction: int


@dataclass(frozen=True, eq=False)
class _Candidate:
    rule: Rule
    name: str | None
    label: np.ndarray  # (n,) levels, each from a rule that this response had no say in


@dataclass(frozen=True, eq=False)
class _Sample:
    corpus: Corpus
    s: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    questions: Sequence[str]
    labels: Sequence[np.ndarray]
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
) -> list[Feature]:
    """The features that add most to what `labels` explain of `s`, each beyond those listed before it.

    Args:
        texts: n responses.
        s: `(n,)` in [-1, 1], > 0 more probable before.
        weight: `(n,)` > 0.
        prompt: `(n,)` int codes.
        labels: What is accounted for, each `(n,)` int; the first are the length bins.
        questions: `(n,)` what each response answers.
        rng: Splits the folds.
        n: How many at most.
        taken: Rules that must not come back, nor anything that labels these responses like them.

    Raises:
        ShapeError: The arrays do not fit together.
    """
    corpus = Corpus.of(texts)
    background = Background(s, weight, prompt, labels)
    sample = _Sample(corpus, s, weight, prompt, questions, labels, background, _folds(s, prompt, rng))
    candidates = [*_built_in(sample), *_scales(sample), *_openings(sample)]
    old = [levels(rule, corpus) for rule in taken]
    fresh = [
        c for c in candidates if not any(_same(c.rule, rule) for rule in taken) and not any(_alike(levels(c.rule, corpus), o) for o in old)
    ]
    chosen: list[Feature] = []
    while fresh and len(chosen) < n:
        gains = [background.gain(candidate.label) for candidate in fresh]
        best = max(range(len(fresh)), key=lambda k: gains[k].cautious)
        if gains[best].estimate <= 0 or (chosen and gains[best].cautious <= 0):
            break
        winner = fresh[best]
        change = -float(np.sum(weight * s * levels(winner.rule, corpus)))
        chosen.append(Feature(winner.rule, winner.name, gains[best], int(np.sign(change))))
        background = background.with_label(winner.label)
        fresh = [c for c, gain in zip(fresh, gains, strict=True) if gain.estimate > 0 and not _same(c.rule, winner.rule)]
    return chosen


def _folds(s: np.ndarray, prompt: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    fold = np.empty(len(s), dtype=np.int64)
    order = np.lexsort((rng.random(len(s)), s > 0, prompt))
    fold[order] = (np.arange(len(s)) + rng.integers(N_FOLDS)) % N_FOLDS
    return fold


def _same(one: Rule, other: Rule) -> bool:
    if one.kind != other.kind:
        return False
    if not (one.phrases or one.against):
        return True
    mine, theirs = set(one.phrases), set(other.phrases)
    signed = {(word, 1) for word in mine} | {(word, -1) for word in one.against}
    straight = {(word, 1) for word in theirs} | {(word, -1) for word in other.against}
    mirrored = {(word, -sign) for word, sign in straight}
    return max(len(signed & other_side) / len(signed | other_side) for other_side in (straight, mirrored)) >= SAME_PHRASES


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return False
    return bool(abs(np.corrcoef(one, other)[0, 1]) >= SAME_LABELS)


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


def _round_between(low: float, high: float) -> float:
    """The number with fewest decimals in [low, high)."""
    for decimals in range(7):
        value = np.ceil(low * 10**decimals) / 10**decimals
        if low <= value < high:
            return float(value)
    return low


def _built_in(sample: _Sample) -> Iterator[_Candidate]:
    """Each rule of `RULES`, levels cut at quantiles of these responses (which do not look at `s`), in its better unit."""
    for name, rule in RULES.items():
        # A count of common words would be another reading of length: such rules keep their rate.
        units: tuple[Unit, ...] = ("count", "per 100 words") if rule.unit == "count" and rule.kind != "opening" else (rule.unit,)
        options = []
        for unit in units:
            values = measure(replace(rule, unit=unit), sample.corpus)
            for n_levels in N_LEVELS:
                fitted = replace(rule, unit=unit, thresholds=cut(values, n_levels))
                options.append(_Candidate(fitted, name, np.searchsorted(fitted.thresholds, values)))
        yield _best(sample, options)


def _best(sample: _Sample, options: Sequence[_Candidate]) -> _Candidate:
    # The first (fewer levels, plainer unit) unless another is better by more than a hair.
    gains = [sample.background.gain(option.label).estimate for option in options]
    best = int(np.argmax(gains))
    return options[0] if gains[best] - gains[0] < 0.002 else options[best]


def _scales(sample: _Sample) -> Iterator[_Candidate]:
    """Scales "A words against B words": of everything that separates, and of each company that phrases keep."""
    found = ngrams(sample.corpus, sample.questions)
    everything = np.arange(len(found.phrases))
    groups = [(everything, size) for size in POLES] + [(group, POLES[0]) for group in _clusters(found, sample.background)]

    def choose(rows: np.ndarray, background: Background) -> list[Rule | None]:
        strength = _strength(found, sample.corpus.n_words, background, sample.labels[0], rows)
        return [_poles(found, strength, group, size, "phrases", "per 100 words") for group, size in groups]

    return _out_of_fold(sample, choose)


def _openings(sample: _Sample) -> Iterator[_Candidate]:
    """How responses open: first words that became more frequent against those that became less so."""
    found = openings(sample.corpus, sample.questions)

    def choose(rows: np.ndarray, background: Background) -> list[Rule | None]:
        t = background.partial(found.rows(rows))
        strength = np.where(np.abs(t) >= MIN_T, t, 0.0)
        return [_poles(found, strength, np.arange(len(found.phrases)), POLES[0], "opening", "count")]

    return _out_of_fold(sample, choose)


def _poles(found: Ngrams, strength: np.ndarray, group: np.ndarray, size: int, kind: str, unit: Unit) -> Rule | None:
    after, before = (tuple(found.phrases[k] for k in _strongest(sign * strength, group, found, size)) for sign in (-1, 1))
    return Rule(kind, after, before, unit=unit) if len(after) + len(before) >= MIN_PHRASES else None


def _out_of_fold(sample: _Sample, choose: Callable[[np.ndarray, Background], list[Rule | None]]) -> Iterator[_Candidate]:
    """Candidates for the rules that `choose` finds in everything, each response labelled by the rule found without its fold."""
    rules = choose(np.arange(len(sample.corpus)), sample.background)
    labels = np.zeros((len(rules), len(N_LEVELS), len(sample.corpus)), dtype=np.int64)
    for fold in range(N_FOLDS if any(rules) else 0):
        rows, left_out = np.flatnonzero(sample.fold != fold), np.flatnonzero(sample.fold == fold)
        for k, rule in enumerate(choose(rows, sample.without(fold))):
            if rule is not None and rules[k] is not None:
                values = measure(rule, sample.corpus)
                for j, n_levels in enumerate(N_LEVELS):
                    labels[k, j, left_out] = np.searchsorted(cut(values[rows], n_levels), values[left_out])
    for rule, label in zip(rules, labels, strict=True):
        if rule is not None:
            if not rule.phrases:
                rule = replace(rule, phrases=rule.against, against=())
            values = measure(rule, sample.corpus)
            thresholds = [cut(values, n_levels) for n_levels in N_LEVELS]
            yield _best(
                sample, [_Candidate(replace(rule, thresholds=t), None, of_level) for t, of_level in zip(thresholds, label, strict=True)]
            )
