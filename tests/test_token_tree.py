from __future__ import annotations

import numpy as np
import pytest

from probes.errors import SampleError
from probes.request import Request, distinct
from probes.token_tree import Pack, pack


def requests(rng: np.random.Generator, n: int = 120) -> list[Request]:
    """Distinct responses of 1 to 12 tokens, most of which begin like another one, to four prompts, two of which do."""
    prompts = [(1, 2), (1, 2, 3), (0,), (4, 4, 4, 4)]
    made = [Request(prompts[k % 4], (*map(int, rng.integers(0, 3, rng.integers(0, 12))), 9)) for k in range(n)]
    return [made[k] for k in distinct(made)[0]]


def text(request: Request) -> tuple[int, ...]:
    """Prompt and response."""
    return request.prompt + request.response


def chains(each: Pack) -> dict[int, tuple[int, ...]]:
    """Tokens of the text that ends at each node, as attention sees it."""
    found: dict[int, tuple[int, ...]] = {}
    for group in each.segments:
        for queries, keys, start, length in zip(group.queries, group.keys, group.starts, group.lengths, strict=True):
            for place in range(length):
                assert queries[place] not in found
                assert keys[start + place] == queries[place]
                found[int(queries[place])] = tuple(int(token) for token in each.tokens[keys[: start + place + 1]])
    return found


def test_every_beginning_is_run_once(rng: np.random.Generator) -> None:
    """Nodes are exactly the distinct beginnings of the texts, last tokens left out, each with all that precedes it and nothing else."""
    asked = requests(rng)
    for each in pack(asked, 10**6):
        found = chains(each)
        assert sorted(found) == list(range(len(each.tokens)))
        assert all(len(chain) == each.positions[node] + 1 for node, chain in found.items())
        beginnings = {text(asked[row])[:k] for row in each.rows for k in range(1, len(text(asked[row])))}
        assert len(found) == len(beginnings)
        assert set(found.values()) == beginnings


def test_every_token_of_a_response_is_scored_where_it_is_predicted(rng: np.random.Generator) -> None:
    """The edges along a response's path lead from what precedes each of its tokens to that token; each edge is there once."""
    asked = requests(rng)
    for each in pack(asked, 150):
        found = chains(each)
        edges = [found[int(each.parents[p])] + (int(t),) for p, t in zip(each.edge_parent, each.edge_token, strict=True)]
        assert len(set(edges)) == len(edges)
        for row, path, length in zip(each.rows, each.paths, each.lengths, strict=True):
            start = len(asked[row].prompt)
            assert [edges[edge] for edge in path[:length]] == [text(asked[row])[: start + k + 1] for k in range(length)]
            assert (path[length:] == len(edges)).all()


def test_a_pack_keeps_to_its_budget(rng: np.random.Generator) -> None:
    """Every request is in one pack; packs have at most the budget's nodes or those of four texts; smaller packs share less."""
    asked = requests(rng, 200)
    sizes = []
    longest = 4 * max(len(text(request)) for request in asked)
    for budget in (1, 100, 200, 10**6):
        packs = pack(asked, budget)
        assert sorted(row for each in packs for row in each.rows) == list(range(len(asked)))
        assert all(len(each.tokens) <= max(budget, longest) for each in packs)
        sizes.append(sum(len(each.tokens) for each in packs))
    assert sizes == sorted(sizes, reverse=True)


def test_sums_along_the_paths(rng: np.random.Generator) -> None:
    """A response's log-probability is the sum of its edges', and so is that of its first tokens; a prefix beyond its end is all of it."""
    asked = requests(rng)
    for each in pack(asked, 100):
        edges = rng.normal(size=len(each.edge_token))
        scores = each.cumulative(edges, (1, 4, 50))
        for k, (path, length) in enumerate(zip(each.paths, each.lengths, strict=True)):
            own = edges[path[:length]]
            assert scores[k] == pytest.approx([own.sum(), own[0], own[:4].sum(), own.sum()])


def test_an_empty_text_is_refused() -> None:
    """Even an empty answer has its stop token."""
    with pytest.raises(SampleError, match="request 1"):
        pack([Request((0,), (1,)), Request((0,), ())])
