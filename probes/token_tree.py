"""Texts that begin alike as a tree of tokens: every common beginning is computed once, be it a prompt's or a response's.

Requests are sorted by their tokens, so that what they share is what each shares with the one before. A *node* is a token that is run
through the subject, an *edge* one that is scored: it is predicted at its parent node. A response's last token is an edge and no node.
Nodes lie in one row without padding; attention alone sees the tree, through runs of new nodes (*segments*) and the chains that lead to
them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError
from probes.request import Request

Indices = npt.NDArray[np.int64]

TOKENS = 1024
"""Nodes of a tree: enough to multiply matrices at full speed, few enough for what a layer computes to stay in a processor's cache."""
TEXTS = 4
"""Texts that a tree has room for, whatever their length: a long prompt is not run again for each response."""
PADDING = 1.3
"""Segments attend in one call while padding costs at most this factor ..."""
FREE_SCORES = 20_000
"""... or at most so many attention scores a head: about what another call costs."""


@dataclass(frozen=True)
class Segments:
    """Runs of nodes that attend in one call.

    Attributes:
        queries: Their nodes, padded with 0, shape (n, q).
        keys: The nodes from the text's first to the run's last, padded with 0, shape (n, k).
        starts: Position of the first query in its text, shape (n,).
        lengths: Number of queries, shape (n,).
    """

    queries: Indices
    keys: Indices
    starts: Indices
    lengths: Indices


@dataclass(frozen=True)
class Pack:
    """Some requests as one tree.

    Attributes:
        rows: Which requests these are, shape (n_rows,).
        tokens: Token ids of the nodes, shape (n_nodes,).
        positions: Their places in their texts, shape (n_nodes,).
        segments: Every node in exactly one run.
        parents: Nodes at which something is scored, shape (n_parents,).
        edge_parent: Index into `parents`, ascending, shape (n_edges,).
        edge_token: Token id, shape (n_edges,).
        paths: The edges of each response, padded with n_edges, shape (n_rows, longest response).
        lengths: Number of tokens of each response, shape (n_rows,).
    """

    rows: Indices
    tokens: Indices
    positions: Indices
    segments: tuple[Segments, ...]
    parents: Indices
    edge_parent: Indices
    edge_token: Indices
    paths: Indices
    lengths: Indices

    def cumulative(self, edges: npt.NDArray[np.float64], prefixes: Sequence[int] = ()) -> npt.NDArray[np.float64]:
        """Log-probabilities of the responses and of their first tokens.

        Args:
            edges: Log-probability of each edge in nats, shape (n_edges,).
            prefixes: Prefix lengths in tokens.

        Returns:
            Shape (n_rows, 1 + len(prefixes)): the whole response, then its first `prefixes[k]` tokens (all, when it is shorter).
        """
        sums = np.cumsum(np.append(edges, 0.0)[self.paths], axis=1)
        last = np.stack([self.lengths, *(np.minimum(self.lengths, prefix) for prefix in prefixes)], axis=1) - 1
        return np.take_along_axis(sums, last, axis=1)


def pack(requests: Sequence[Request], tokens_per_pack: int = TOKENS) -> list[Pack]:
    """Sort requests into trees of at most `tokens_per_pack` nodes, or of `TEXTS` times the longest text where that is more.

    Raises:
        SampleError: A prompt or a response is empty: even an empty answer has its stop token.
    """
    for row, request in enumerate(requests):
        if not request.prompt or not request.response:
            raise SampleError(f"expected a prompt and a response with at least the stop token, found an empty one at request {row}")
    texts = [np.array(request.prompt + request.response, dtype=np.int64) for request in requests]
    budget = max(tokens_per_pack, TEXTS * max(map(len, texts), default=0))
    order = sorted(range(len(requests)), key=lambda row: requests[row].prompt + requests[row].response)
    packs, chosen, size = [], list[int](), 0
    for row in order:
        new = len(texts[row]) - (_common(texts[chosen[-1]], texts[row]) if chosen else 0)
        if chosen and size + new > budget:
            packs.append(_tree(requests, texts, chosen))
            chosen, size, new = [], 0, len(texts[row])
        chosen.append(row)
        size += new
    return [*packs, _tree(requests, texts, chosen)] if chosen else packs


def _common(before: Indices, after: Indices) -> int:
    """Number of leading tokens that two texts share."""
    n = min(len(before), len(after))
    differ = before[:n] != after[:n]
    return int(differ.argmax()) if differ.any() else n


def _tree(requests: Sequence[Request], texts: Sequence[Indices], rows: Sequence[int]) -> Pack:
    chains, shared, n_items = list[Indices](), list[int](), 0
    for k, row in enumerate(rows):
        common = _common(texts[rows[k - 1]], texts[row]) if k else 0
        new = np.arange(n_items, n_items + len(texts[row]) - common)
        chains.append(np.concatenate([chains[-1][:common], new]) if k else new)
        shared.append(common)
        n_items += len(new)
    token, position, parent = (np.zeros(n_items, dtype=np.int64) for _ in range(3))
    is_edge = np.zeros(n_items, dtype=bool)
    for chain, row in zip(chains, rows, strict=True):
        token[chain], position[chain] = texts[row], np.arange(len(chain))
        parent[chain[1:]] = chain[:-1]
        is_edge[chain[len(requests[row].prompt) :]] = True
    is_node = np.zeros(n_items, dtype=bool)
    is_node[parent[position > 0]] = True
    node = np.cumsum(is_node) - 1
    runs = [
        run
        for chain, common, row in zip(chains, shared, rows, strict=True)
        for run in _runs(chain, common, len(requests[row].prompt), is_node)
    ]
    edges = np.flatnonzero(is_edge)
    edges = edges[np.argsort(parent[edges], kind="stable")]
    parents, edge_parent = np.unique(node[parent[edges]], return_inverse=True)
    lengths = np.array([len(requests[row].response) for row in rows], dtype=np.int64)
    place = np.zeros(n_items, dtype=np.int64)
    place[edges] = np.arange(len(edges))
    paths = np.full((len(rows), lengths.max()), len(edges), dtype=np.int64)
    for k, (chain, length) in enumerate(zip(chains, lengths, strict=True)):
        paths[k, :length] = place[chain[-length:]]
    return Pack(
        rows=np.array(rows, dtype=np.int64),
        tokens=token[is_node],
        positions=position[is_node],
        segments=tuple(_segments([(node[chain], start) for chain, start in runs])),
        parents=parents,
        edge_parent=edge_parent,
        edge_token=token[edges],
        paths=paths,
        lengths=lengths,
    )


def _runs(chain: Indices, common: int, prompt: int, is_node: npt.NDArray[np.bool_]) -> list[tuple[Indices, int]]:
    """The new nodes of one text as (chain up to the run's last node, where the run begins): the prompt's apart from the response's."""
    end = len(chain) if is_node[chain[-1]] else len(chain) - 1
    bounds = [common, min(prompt, end), end] if common < prompt < end else [common, end]
    return [(chain[:stop], start) for start, stop in itertools.pairwise(bounds) if stop > start]


def _segments(runs: Sequence[tuple[Indices, int]]) -> list[Segments]:
    """Group runs of similar length, longest first."""
    groups: list[list[tuple[Indices, int]]] = []
    queries = keys = useful = 0
    for run in sorted(runs, key=lambda run: (run[1] - len(run[0]), -len(run[0]))):
        chain, start = run
        scores = (len(chain) - start) * len(chain)
        padded = (len(groups[-1]) + 1) * queries * max(keys, len(chain)) if groups else 0
        if groups and padded <= max(PADDING * (useful + scores), useful + scores + FREE_SCORES):
            groups[-1].append(run)
            keys, useful = max(keys, len(chain)), useful + scores
        else:
            groups.append([run])
            queries, keys, useful = len(chain) - start, len(chain), scores
    return [_padded(group) for group in groups]


def _padded(group: Sequence[tuple[Indices, int]]) -> Segments:
    starts = np.array([start for _, start in group], dtype=np.int64)
    ends = np.array([len(chain) for chain, _ in group], dtype=np.int64)
    queries = np.zeros((len(group), (ends - starts).max()), dtype=np.int64)
    keys = np.zeros((len(group), ends.max()), dtype=np.int64)
    for k, (chain, start) in enumerate(group):
        queries[k, : len(chain) - start] = chain[start:]
        keys[k, : len(chain)] = chain
    return Segments(queries, keys, starts, ends - starts)
