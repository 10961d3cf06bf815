from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from agent.config import make_config
from agent.judge import make_judge
from agent.null_runs import halved, null_runs, permuted
from agent.proposer import make_proposer
from agent.workbench import Workbench
from tracing import Recording, Responses


def recording(n_prompts: int = 12, n_each: int = 6) -> Recording:
    """Before: plain answers; after: the same with exclamation marks."""
    rng = np.random.default_rng(0)
    prompts, completions, sides = [], [], []
    for p in range(n_prompts):
        for side, mark in (("base", "."), ("tuned", "!!!")):
            for _ in range(n_each):
                words = " ".join(rng.choice(["tea", "rain", "stone", "river", "cloud"], 12))
                prompts.append(f"question {p}")
                completions.append(words + mark)
                sides.append(side)
    return Recording("planted", "digest", Responses.of(prompts, completions, side=sides))


@pytest.fixture
def work(tmp_path: Path) -> Workbench:
    """A discovery on the planted answers."""
    config = make_config(run="planted", before="base", after="tuned", memory="off", rounds=2, n_permutations=199)
    return Workbench(recording(), config, tmp_path, make_proposer("embedded"), make_judge("embedded"))


def test_permuting_keeps_every_response_in_its_prompt(work: Workbench) -> None:
    """A permuted null deals the same responses out anew within each prompt; s and weights stay where they were."""
    null = permuted(work, np.random.default_rng(0))
    assert (null.contrast.s == work.contrast.s).all()
    assert (null.contrast.index != work.contrast.index).any()
    for p in range(work.contrast.n_prompts):
        rows = work.contrast.prompt == p
        assert sorted(null.contrast.index[rows]) == sorted(work.contrast.index[rows])


def test_halves_divide_one_side_evenly() -> None:
    """Both halves have every prompt, the same number of responses up to one, and no response of the other side."""
    whole = recording(n_each=5)
    rows = np.flatnonzero(np.array(whole.responses.side) == "base")
    part = halved(whole, rows, np.random.default_rng(0)).responses
    assert len(part) == rows.size
    assert not any("!" in text for text in part.completion)
    for key in set(part.prompt_key):
        sides = [s for s, k in zip(part.side or (), part.prompt_key, strict=True) if k == key]
        assert abs(sides.count("half A") - sides.count("half B")) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["permute", "split"])
def test_nothing_is_accepted_from_noise_here(work: Workbench, kind: Literal["permute", "split"]) -> None:
    """Where the real sides differ in every response, the null runs of the same size accept nothing, and say how many they tried."""
    result = null_runs(work, kind, 2, lambda name, numbers: None)
    assert (result.runs, result.accepted) == (2, 0)
    assert "2 null runs" in result.sentence


def test_a_null_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """One response a side cannot be halved: no null run is counted, and the sentence says why."""
    config = make_config(run="planted", before="base", after="tuned", memory="off", rounds=1, n_permutations=99)
    single = Workbench(recording(n_each=1), config, tmp_path, make_proposer("embedded"), make_judge("embedded"))
    result = null_runs(single, "split", 3, lambda name, numbers: None)
    assert result.runs == 0
    assert "not possible" in result.sentence
