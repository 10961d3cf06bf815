"""Words and phrases that tell before from after: counted, scored, and grouped by the company they keep.

A phrase's strength is its partial association with s beyond a background (`probes.gain`), where weighted log-odds of its rates
within length bins under an informative Dirichlet prior (Monroe, Colaresi & Quinn 2008) agree in sign. Rates, not presence: long
responses contain everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.gain import Background
from probes.words import Corpus, tokenize

MAX_PHRASES = 3000  # the most frequent that qualify: rarer ones cannot reach a noticeable gain
MAX_COMPANY = 800  # the most frequent of those are also grouped by the company they keep
PHRASES_A_COMPANY = 14
MIN_T = 1.0  # partial t below which a phrase says nothing
MAX_OVERLAP = 0.6  # of two phrases that share this part of their texts, only the stronger is used
PENALTIES = (10.0, 0.25)  # L2, of coefficients of presence and of tf-idf
SIDE = 1 / 8  # part of a list that a side needs to be worth reading

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
# ... but a phrase may begin with one of these: who speaks or acts, and whether it is denied, is part of what is said.
_LEADING = "i you we they he she my your our their i'm you're we're as don't doesn't can't cannot not no never should must"
LEADING_WORDS = frozenset(_LEADING.split())


@dataclass(frozen=True, eq=False)
class Phrases:
    """Phrases that could carry meaning: `phrases` (k,) and their `counts`, a sparse `(n, k)` array of float."""

    phrases: tuple[str, ...]
    counts: Any

    def rows(self, index: np.ndarray) -> Any:
        """Sparse counts of some responses, `(len(index), k)`."""
        from scipy import sparse

        return sparse.csc_array(sparse.csr_array(self.counts)[index])


def telling_phrases(corpus: Corpus, questions: Sequence[str]) -> Phrases:
    """Phrases of 1-3 words that begin and end in telling words and stand in enough responses to enough different questions.

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
    keep = np.sort(keep[np.argsort(-np.diff(found.counts.indptr)[keep], kind="stable")[:MAX_PHRASES]])
    return Phrases(tuple(found.phrases[k] for k in keep), found.counts[:, keep])


def opening_phrases(corpus: Corpus, questions: Sequence[str]) -> Phrases:
    """The first 1, 2 and 3 words of responses, where enough responses to enough different questions open with them."""
    start = np.flatnonzero(np.diff(np.concatenate([[-1], corpus.document])))  # every text is closed by a 0: no phrase leaves it
    places = []
    for size in (1, 2, 3):
        places.append(start[np.all([np.take(corpus.ids, start + k, mode="clip") > 0 for k in range(size)], axis=0)])
    return _frequent(corpus, places, _asked(questions)[1])


def _asked(questions: Sequence[str]) -> tuple[list[str], np.ndarray]:
    asked = {text: k for k, text in enumerate(dict.fromkeys(questions))}
    return list(asked), np.array([asked[text] for text in questions], dtype=np.int64)


def _inside(corpus: Corpus, empty: np.ndarray, size: int) -> np.ndarray:
    """Token positions where a phrase of `size` words begins that ends in a content word and crosses no sentence end."""
    n = max(len(corpus.ids) - size + 1, 0)
    parts = [corpus.ids[k : n + k] for k in range(size)]
    if size > 1:
        leads = ~empty | np.array([word in LEADING_WORDS for word in corpus.words])
        return np.flatnonzero(np.logical_and.reduce([part > 0 for part in parts]) & ~empty[parts[-1]] & leads[parts[0]])
    return np.flatnonzero(~empty[parts[0]])


def _frequent(corpus: Corpus, places: Sequence[np.ndarray], question: np.ndarray) -> Phrases:
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
    return Phrases(tuple(phrases), sparse.csc_array(sparse.hstack(blocks)))


def _is_empty(word: str) -> bool:
    return not word or word in STOP_WORDS or word.isdigit() or (word.isascii() and len(word) < 3 and word != "ai")


def _echoes(found: Phrases, asked: Sequence[str], question: np.ndarray) -> np.ndarray:
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
    mass = mass * (mass.sum() / max(float(np.sum(mass**2)), 1e-300))  # counts of an effective number of responses
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


def strength(found: Phrases, n_words: np.ndarray, background: Background, bins: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`(k,)` partial t of root rates in `rows`; 0 where it says nothing or contradicts the log-odds; > 0: more of it before."""
    from scipy import sparse

    counts = found.rows(rows)
    rates = sparse.csc_array(counts.multiply(1 / np.maximum(n_words[rows], 10)[:, None]))
    rates.data = np.sqrt(rates.data)  # a single hit in a very short text is a high rate
    t = background.partial(rates)
    z = log_odds(counts, n_words[rows], background.residual, background.weight, bins[rows])
    return np.where((t * z > 0) & (np.abs(t) >= MIN_T), t, 0.0)


def strongest(strengths: np.ndarray, columns: np.ndarray, found: Phrases, size: int) -> np.ndarray:
    """Up to `size` of `columns` with positive strength, strongest first, skipping those that share their texts with a stronger one."""
    order = columns[strengths[columns] > 0]
    order = np.asarray(order[np.argsort(-strengths[order], kind="stable")][: 4 * size])
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


def joint_strength(found: Phrases, y: np.ndarray, weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`(k,)` what each phrase says beside all others about the sign of `y`; > 0: more of it where y > 0.

    The sum of the coefficients of two logistic regressions, each brought to root mean square 1: on whether phrases are there,
    and on their tf-idf (log counts, each response of norm 1); L2 penalty, loss weighted by `|y| weight` scaled to mean 1. Either
    alone picks words that hold less well on other responses. Unlike `strength`, it does not take ten words that say the same.

    Args:
        found: k phrases.
        y: `(len(rows),)` what is to be told apart by its sign.
        weight: `(len(rows),)` >= 0.
        rows: Which responses.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    mass = np.abs(y) * weight
    if not len(found.phrases) or not (np.any(mass[y > 0] > 0) and np.any(mass[y < 0] > 0)):
        return np.zeros(len(found.phrases))
    counts = sparse.csr_matrix(found.rows(rows))
    counts.indices, counts.indptr = counts.indices.astype(np.int32), counts.indptr.astype(np.int32)  # all that liblinear reads
    total = np.zeros(len(found.phrases))
    for x, penalty in (
        ((counts > 0).astype(float), PENALTIES[0]),
        (TfidfTransformer(sublinear_tf=True).fit_transform(counts), PENALTIES[1]),
    ):
        fit = LogisticRegression(C=1 / penalty, solver="liblinear", random_state=0).fit(x, y > 0, sample_weight=mass / mass.mean())
        total += fit.coef_[0] / max(float(np.sqrt(np.mean(fit.coef_[0] ** 2))), 1e-12)
    return total


def most_telling(strengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The `size` columns of largest absolute strength, those below and those above 0, strongest first.

    A side that would hold only a few of them is left out: the other then says the same by itself, and reads more easily.
    """
    order = np.argsort(-np.abs(strengths), kind="stable")
    below, above = order[strengths[order] < 0], order[strengths[order] > 0]
    n_below, n_above = (int(np.isin(order[:size], side).sum()) for side in (below, above))
    if min(n_below, n_above) < SIDE * size:
        n_below, n_above = (size, 0) if n_below > n_above else (0, size)
    return below[:n_below], above[:n_above]


def companies(found: Phrases, background: Background) -> list[np.ndarray]:
    """Columns of phrases that keep company within prompts and beyond length; made without looking at `s`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    frequent = np.sort(np.argsort(-np.diff(found.counts.indptr), kind="stable")[:MAX_COMPANY])
    if len(frequent) < 2 * PHRASES_A_COMPANY:
        return []
    x = background.beyond(np.sqrt(found.counts[:, frequent].toarray()))
    x = x / np.maximum(np.linalg.norm(x, axis=0), 1e-9)
    tree = linkage(squareform(np.clip(1 - x.T @ x, 0, 2), checks=False), "average")
    label = fcluster(tree, len(frequent) // PHRASES_A_COMPANY, "maxclust")
    return [frequent[label == k] for k in np.unique(label)]
