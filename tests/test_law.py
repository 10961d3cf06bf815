from __future__ import annotations

import numpy as np
import pytest

from probes.errors import SampleError
from probes.law import BLOCK, Law, draw_tokens


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(1.0, 1.0, 0), (0.6, 0.8, 0), (1.7, 1.0, 5), (1.3, 0.7, 9)])
def test_a_law_is_that_of_generate(temperature: float, top_p: float, top_k: int) -> None:
    """Temperature, top_k and top_p leave the tokens and the probabilities that transformers' own processors leave."""
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * 2
    theirs = TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1.0 else logits
    theirs = TopKLogitsWarper(top_k)(None, theirs) if top_k else theirs
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p < 1.0 else theirs
    ours = Law(temperature, top_p, top_k).logits(logits.clone())
    assert torch.equal(ours.isinf(), theirs.isinf())
    assert torch.allclose(ours.softmax(-1), theirs.softmax(-1), atol=1e-6)


@pytest.mark.parametrize("size", [5, BLOCK, 3 * BLOCK + 7])
def test_draws_invert_the_distribution_function(size: int) -> None:
    """Evenly spaced uniform numbers give every token as often as its probability says, to one draw at each of its two ends."""
    import torch

    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(1)) * 2
    n = 20_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    token, log_p = draw_tokens(logits.expand(n, -1), uniform)
    counts = np.bincount(token.numpy(), minlength=size)
    p = logits.double().softmax(-1)[0].numpy()
    assert np.abs(counts - n * p).max() < 1.1
    assert log_p.numpy() == pytest.approx(np.log(p)[token.numpy()], abs=1e-5)


def test_an_impossible_token_is_never_drawn() -> None:
    """Not at 0, not just below 1, not at any edge between blocks."""
    import torch

    logits = torch.full((4, 3 * BLOCK), -torch.inf)
    logits[:, [5, BLOCK, 2 * BLOCK - 1]] = torch.tensor([0.0, 1.0, 2.0])
    token, _ = draw_tokens(logits, torch.tensor([0.0, 1 - 2**-53, float(logits[0].softmax(-1)[5]), 0.5], dtype=torch.float64))
    assert set(token.tolist()) <= {5, BLOCK, 2 * BLOCK - 1}
    assert token[0] == 5
    assert token[1] == 2 * BLOCK - 1


def test_what_is_no_law_is_refused() -> None:
    """Temperature 0 (greedy) scores nothing; neither does an empty nucleus."""
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}):
        with pytest.raises(SampleError, match="expected temperature > 0"):
            Law(**wrong)
