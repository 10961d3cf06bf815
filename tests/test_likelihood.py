from __future__ import annotations

import numpy as np
import pytest

from probes.errors import SampleError
from probes.likelihood import Request, distinct, log_likelihoods, plan
from tests.tiny_subject import STOP, all_responses, tiny_subject


def requests(rng: np.random.Generator, n: int = 60) -> list[Request]:
    """Random responses of 1 to 12 tokens to three random prompts."""
    prompts = [tuple(map(int, rng.integers(0, 4, size))) for size in (1, 3, 7)]
    return [Request(prompts[k % 3], (*map(int, rng.integers(0, 4, rng.integers(0, 12))), STOP)) for k in range(n)]


def one_by_one(request: Request, prefix: int | None = None) -> float:
    """The definition: one forward pass over the whole text in double precision, no batch, no cache."""
    import torch

    with torch.inference_mode():
        logits = tiny_subject().double()(torch.tensor([[*request.prompt, *request.response]])).logits[0]
    start = len(request.prompt) - 1
    log_p = logits.log_softmax(-1)
    return float(sum(log_p[start + k, token] for k, token in enumerate(request.response[:prefix])))


@pytest.mark.slow
def test_scores_are_sums_of_the_tokens_log_probabilities(rng: np.random.Generator) -> None:
    """Batched, padded and with a shared prompt, the score is the definition's: 1e-5 nats in float32, 1e-10 in float64."""
    asked = requests(rng)
    exact = np.array([[one_by_one(request, prefix) for prefix in (None, 2, 5)] for request in asked])
    assert np.abs(log_likelihoods(tiny_subject(), plan(asked, 40), (2, 5)) - exact).max() < 1e-5
    assert np.abs(log_likelihoods(tiny_subject().double(), plan(asked, 40), (2, 5)) - exact).max() < 1e-10


@pytest.mark.slow
def test_the_law_sums_to_one() -> None:
    """Over all responses cut at 3 tokens, probabilities sum to 1; so do those of the first token alone."""
    possible = list(all_responses(3))
    scores = log_likelihoods(tiny_subject(), plan([Request((0, 1), response) for response in possible]), (1,))
    assert np.exp(scores[:, 0]).sum() == pytest.approx(1.0, abs=1e-5)
    first = {response[0]: score for response, score in zip(possible, scores[:, 1], strict=True)}
    assert np.exp(list(first.values())).sum() == pytest.approx(1.0, abs=1e-5)


def test_prefixes_are_cumulative(rng: np.random.Generator) -> None:
    """A longer prefix is never more probable, and a prefix at least as long as the response is the whole response."""
    asked = requests(rng)
    scores = log_likelihoods(tiny_subject(), plan(asked), (1, 4, 8, 100))
    assert np.all(np.diff(scores[:, 1:], axis=1) <= 0)
    assert np.array_equal(scores[:, 0], scores[:, 4])
    short = np.array([len(request.response) <= 4 for request in asked])
    assert short.any()
    assert np.array_equal(scores[short, 0], scores[short, 2])


def test_the_batch_does_not_matter(rng: np.random.Generator) -> None:
    """What else is scored, and how it is cut into batches, changes a score by rounding only."""
    asked = requests(rng)
    whole = log_likelihoods(tiny_subject(), plan(asked))
    assert np.abs(whole - log_likelihoods(tiny_subject(), plan(asked, 1))).max() < 1e-5
    assert np.abs(whole[::-1] - log_likelihoods(tiny_subject(), plan(asked[::-1]))).max() < 1e-5


def test_temperature_scales_the_logits() -> None:
    """At temperature 2 the law is the softmax of half the logits: flatter, and still a law."""
    possible = [Request((0, 1), response) for response in all_responses(3)]
    warm, plain = (np.exp(log_likelihoods(tiny_subject(), plan(possible), temperature=t)[:, 0]) for t in (2.0, 1.0))
    assert warm.sum() == pytest.approx(1.0, abs=1e-5)
    assert -(warm * np.log(warm)).sum() > -(plain * np.log(plain)).sum()


def test_distinct_scores_each_response_once() -> None:
    """The first of each kind, and where each item finds its own."""
    first, place = distinct("abcab")
    assert first.tolist() == [0, 1, 2]
    assert place.tolist() == [0, 1, 2, 0, 1]


def test_broken_input_is_refused() -> None:
    """An empty response and a subject with broken weights each give one clear line; NaN never reaches a recording."""
    import torch

    with pytest.raises(SampleError, match="request 1"):
        plan([Request((0,), (STOP,)), Request((0,), ())])
    broken = tiny_subject()
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(SampleError, match="found NaN for 1 responses"):
        log_likelihoods(broken, plan([Request((0,), (STOP,))]))
