"""Embedders: a text becomes a unit vector, so that near texts have a large cosine.

Chosen by name: `ngrams` needs no download and is the default, `st:NAME` uses a sentence-transformers model. The id of the one
an index was built with is stored; vectors of two embedders are never compared.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agent.errors import MemoryStoreError

NGRAM_DIMENSIONS = 512
NGRAM_RANGE = (2, 4)

# Words every question to a judge is made of: they say nothing about which behaviour is meant.
_BOILERPLATE_TEXT = """
    a an the is are was be been being do does did of in on to for from with by at as and or but if then than that this these those it its
    how what which who whether when where why much many strongly far extent degree often
    response responses answer answers reply replies text output model assistant subject user one any some no not
    there here can could would should may might will has have had gives give given rather
    looking whole words word like such uses use used shows show against
"""
BOILERPLATE = frozenset(_BOILERPLATE_TEXT.split())


class Embedder(Protocol):
    """Turns texts into unit vectors.

    Attributes:
        id: Names the vectors: two embedders with one id give the same vector for the same text.
    """

    id: str

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape `(n_texts, dimensions)`, each of length 1 (a text without content: the first unit vector)."""


class NgramEmbedder:
    """Hashed character n-grams inside words, without the words every question is made of; sublinear counts, signed hashing.

    Signed hashing into `d` dimensions changes a cosine by about `1/sqrt(d)` (.04 at 512).
    """

    def __init__(self, dimensions: int = NGRAM_DIMENSIONS, ngrams: tuple[int, int] = NGRAM_RANGE) -> None:
        """Choose the number of dimensions and the lengths of n-grams, shortest and longest."""
        self._dimensions, self._ngrams = dimensions, ngrams
        self.id = f"ngrams-{ngrams[0]}-{ngrams[1]}-{dimensions}-v1"
        self._vectorizer: Any = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape `(n_texts, dimensions)`, each of length 1."""
        if self._vectorizer is None:
            from sklearn.feature_extraction.text import HashingVectorizer

            self._vectorizer = HashingVectorizer(
                analyzer="char_wb", ngram_range=self._ngrams, n_features=self._dimensions, norm=None, preprocessor=content_words
            )
        counts = self._vectorizer.transform(texts)
        counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
        return _unit(counts.toarray())


class SentenceTransformerEmbedder:
    """A sentence-transformers model by name or path (optional dependency)."""

    def __init__(self, name: str) -> None:
        """Load the model.

        Raises:
            MemoryStoreError: sentence-transformers is not installed, or the model cannot be loaded.
        """
        try:
            library = importlib.import_module("sentence_transformers")
        except ImportError:
            raise MemoryStoreError(
                f"the embedder 'st:{name}' needs sentence-transformers, which is not installed: pip install sentence-transformers"
            ) from None
        try:
            self._encoder: Any = library.SentenceTransformer(name)
        except (OSError, ValueError) as problem:
            reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise MemoryStoreError(f"the embedder 'st:{name}' cannot be loaded: {reason}") from None
        self.id = f"st:{name}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape `(n_texts, dimensions)`, each of length 1."""
        return _unit(np.asarray(self._encoder.encode(list(texts), show_progress_bar=False, convert_to_numpy=True)))


def embedder_id(name: str) -> str:
    """The id an embedder of this name (or id) has, without loading it.

    Raises:
        MemoryStoreError: No embedder has this name.
    """
    default = NgramEmbedder().id
    if name in ("ngrams", default):
        return default
    if name.startswith("ngrams-") or (name.startswith("st:") and len(name) > len("st:")):
        return name
    raise MemoryStoreError(f"no embedder is called {name!r}; expected 'ngrams' or 'st:NAME' (a sentence-transformers model)")


def make_embedder(name: str) -> Embedder:
    """Make an embedder by name or id: `ngrams` or `st:NAME`.

    Raises:
        MemoryStoreError: No embedder has this name, or it cannot be loaded.
    """
    identifier = embedder_id(name)
    if identifier.startswith("st:"):
        return SentenceTransformerEmbedder(identifier.removeprefix("st:"))
    default = NgramEmbedder()
    if identifier != default.id:
        raise MemoryStoreError(f"the index uses embedder {identifier!r}, which this version replaced: run `discover memory rebuild`")
    return default


def content_words(text: str) -> str:
    """The words of a text that carry content, in lower case; all of them when none does."""
    words = re.findall(r"\w+", text.lower())
    return " ".join([word for word in words if word not in BOILERPLATE] or words)


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    result = np.asarray(vectors, dtype=np.float32).copy()
    length = np.linalg.norm(result, axis=1)
    result[~(length > 0)] = 0.0
    result[~(length > 0), 0] = 1.0
    length[~(length > 0)] = 1.0
    return np.asarray(result / length[:, None], dtype=np.float32)
