"""Texts as words: the one way in which rules and features split a text.

Words are case-folded; zero-width and direction marks are ignored, so that they cannot hide a word; ideographs are words of
their own. Every step is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

# A word: letters or digits (with combining marks), joined by inner apostrophes. The alternative: what phrases may not reach across.
_MARKS = "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f"
_TOKEN = re.compile(rf"[\w{_MARKS}]+(?:'[\w{_MARKS}]+)*|[.!?:;\n…。！？؟]+")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*|[.!?:;\n]+")
_STOP = frozenset(".!?:;\n…。！？؟")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_INVISIBLE = dict.fromkeys([0xAD, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
_FOLD = {ord("_"): " ", 0x2019: "'", 0x2018: "'", 0x02BC: "'", 0xFF07: "'"}


def tokenize(text: str) -> list[str]:
    """Words of `text` in order, case-folded, with runs of sentence ends and line ends between them; linear in `len(text)`."""
    if text.isascii():
        return _ASCII_TOKEN.findall(text.lower().replace("_", " "))
    folded = visible(text).casefold()
    return _TOKEN.findall(_IDEOGRAPH.sub(r" \g<0> ", folded))


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts as arrays of word numbers, made once and measured many times.

    Attributes:
        texts: The n texts.
        vocabulary: Word -> number, from 1; 0 stands for the end of a sentence or line.
        ids: `(n_tokens,)` word numbers of all texts, one after the other, each text closed by a 0.
        document: `(n_tokens,)` index of the text each token is from.
        n_words: `(n,)` words per text.
        measured: Values of measures already taken (see `probes.rules.measure`).
    """

    texts: tuple[str, ...]
    vocabulary: Mapping[str, int]
    ids: np.ndarray
    document: np.ndarray
    n_words: np.ndarray
    measured: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Corpus:
        """The corpus of `texts`; the last few are kept, so that many rules on the same texts split them once."""
        return _corpus(tuple(texts))

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Word of each number (`""` for 0)."""
        return ("", *self.vocabulary)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Token positions sorted by word number, and where each word's begin."""
        order = np.argsort(self.ids, kind="stable")
        return order, np.searchsorted(self.ids[order], np.arange(len(self.vocabulary) + 2))

    def places(self, phrase: Sequence[str]) -> np.ndarray:
        """Ascending token positions at which `phrase` (words, as `tokenize` gives them) begins."""
        numbers = [self.vocabulary.get(word, -1) for word in phrase]
        if not numbers or min(numbers) < 1:
            return np.empty(0, dtype=np.int64)
        order, bounds = self._places
        found = order[bounds[numbers[0]] : bounds[numbers[0] + 1]]
        for ahead, number in enumerate(numbers[1:], start=1):
            found = found[np.take(self.ids, found + ahead, mode="clip") == number]
        return found

    def count(self, phrases: Iterable[str]) -> np.ndarray:
        """`(n,)` number of places in each text at which at least one of `phrases` begins."""
        found = [self.places(words) for words in phrase_words(tuple(phrases))]
        if not found:
            return np.zeros(len(self))
        return np.bincount(self.document[np.unique(np.concatenate(found))], minlength=len(self)).astype(float)

    def present(self, phrases: Iterable[str]) -> np.ndarray:
        """`(n,)` number of different `phrases` that stand in each text at least once."""
        found = np.zeros(len(self))
        for words in phrase_words(tuple(phrases)):
            document = self.document[self.places(words)]  # ascending, as places are
            found[document] += 1  # once, however often the text is named
        return found

    def of_texts(self, measure: Callable[[str], float]) -> np.ndarray:
        """`(n,)` values of a measure on the raw texts."""
        return np.fromiter(map(measure, self.texts), dtype=float, count=len(self))

    def of_vocabulary(self, measure: Callable[[str], float]) -> np.ndarray:
        """`(n,)` sums over each text's words of a measure on one word."""
        values = np.fromiter(map(measure, self.words), dtype=float, count=len(self.words))
        return np.bincount(self.document, weights=values[self.ids], minlength=len(self))


@lru_cache(maxsize=8)
def _corpus(texts: tuple[str, ...]) -> Corpus:
    vocabulary: dict[str, int] = {}
    ids: list[int] = []
    sizes = np.zeros(len(texts), dtype=np.int64)
    for k, text in enumerate(texts):
        tokens = tokenize(text)
        ids.extend(0 if token[0] in _STOP else vocabulary.setdefault(token, len(vocabulary) + 1) for token in tokens)
        ids.append(0)
        sizes[k] = len(tokens) + 1
    numbers = np.array(ids, dtype=np.int64)
    document = np.repeat(np.arange(len(texts)), sizes)
    n_words = np.bincount(document[numbers > 0], minlength=len(texts)).astype(float)
    return Corpus(texts, vocabulary, numbers, document, n_words)


def visible(text: str) -> str:
    """`text` without zero-width and direction marks, apostrophes made plain."""
    return text.translate(_INVISIBLE).translate(_FOLD)


@lru_cache(maxsize=512)
def phrase_words(phrases: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Each distinct phrase as the words `Corpus.places` looks for."""
    return tuple(dict.fromkeys(tuple(word for word in tokenize(phrase) if word[0] not in _STOP) for phrase in phrases))
