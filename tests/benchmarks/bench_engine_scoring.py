"""64 LoRA checkpoints at half depth, 512 responses: the engine against the plain way, in one run (issue 4)."""

from __future__ import annotations

import copy
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from probes.adapted_checkpoints import AdaptedCheckpoints
from probes.plain_likelihood import plain_log_likelihoods
from probes.request import Request
from probes.token_tree import TOKENS, pack
from tests.benchmarks.engine_subject import load_adapter, quiet, random_requests, random_subject, save_adapters
from tests.benchmarks.section import Section

WIDTH, LAYERS, INNER, VOCABULARY, HEADS = 128, 8, 352, 1024, 4
PROMPTS, RESPONSES = 16, 32
CHECKPOINTS = 64
SHARE_BAR, SPEED_BAR, EQUAL_BAR, CONSTANT_BAR = 0.55, 2.5, 1e-4, 1.1
Answer = TypeVar("Answer")
Seconds = tuple[float, float]
COUNTED_WIDTH = 16
"""Evaluations are counted on a narrow subject of as many layers: their number does not depend on the width."""


@dataclass(frozen=True)
class Timed:
    """What one run found.

    Attributes:
        engine: Wall and processor seconds of each checkpoint by the engine (the first with all that is shared).
        batched, alone: The same of the two plain ways at some of them.
        difference: Largest difference of a response's log-likelihood, in nats.
    """

    engine: list[Seconds]
    batched: list[Seconds]
    alone: list[Seconds]
    difference: float


def evaluations(requests: Sequence[Request], module: str, n: int) -> tuple[float, float]:
    """Token-layer evaluations of the engine at `n` checkpoints, counted by hooks.

    Returns:
        As a share of a full forward pass over the engine's own tokens for every checkpoint (shared layers alone), and of the plain way's
        (beginnings shared, too).
    """
    subject = random_subject(COUNTED_WIDTH, LAYERS, COUNTED_WIDTH, VOCABULARY, 2)
    counted = [0]

    def count(_: Any, inputs: tuple[Any, ...], __: Any) -> None:
        counted[0] += inputs[0].shape[-2]

    for layer in subject.model.layers:
        layer.mlp.gate_proj.register_forward_hook(count)
    with tempfile.TemporaryDirectory() as folder:
        adapters = save_adapters(subject, Path(folder), n, [module], LAYERS // 2)
        with AdaptedCheckpoints(subject, adapters) as checkpoints:
            counted[0] = 0
            list(checkpoints.score(requests, list(adapters)))
    nodes = sum(len(each.tokens) for each in pack(requests))
    plain = sum(len(each.prompt) + len(each.response) for each in requests)
    return counted[0] / (nodes * LAYERS * n), counted[0] / (plain * LAYERS * n)


def timed(requests: Sequence[Request], n: int, every: int, most: int) -> Timed:
    """The engine at `n` checkpoints; between them the plain way, in batches at every `every`-th, one by one at `most` of these."""
    from peft import PeftModel

    subject = random_subject(WIDTH, LAYERS, INNER, VOCABULARY, HEADS)
    found = Timed([], [], [], 0.0)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, quiet():
        adapters = save_adapters(subject, Path(folder), n, ["down_proj"], LAYERS // 2)
        wrapped = PeftModel.from_pretrained(copy.deepcopy(subject), str(adapters[0])).eval()
        with AdaptedCheckpoints(subject, adapters, ahead=0) as checkpoints:
            scores = checkpoints.score(requests, list(adapters))
            for step in adapters:
                ours = clocked(found.engine, lambda: next(scores))
                if step % every == 0:
                    clocked(found.batched, partial(load_adapter, wrapped, adapters[step]))
                    load = found.batched.pop()
                    theirs = clocked(found.batched, partial(plain_log_likelihoods, wrapped, requests, tokens_per_batch=TOKENS), load)
                    worst = max(worst, float(np.abs(ours - theirs).max()))
                    if len(found.alone) < most:
                        clocked(found.alone, partial(plain_log_likelihoods, wrapped, requests, tokens_per_batch=1), load)
    return replace(found, difference=worst)


def clocked(seconds: list[Seconds], work: Callable[[], Answer], before: Seconds = (0.0, 0.0)) -> Answer:
    """Do some work and note its wall and processor seconds, on top of those of what was done before."""
    began, busy = time.perf_counter(), time.process_time()
    answer = work()
    seconds.append((before[0] + time.perf_counter() - began, before[1] + time.process_time() - busy))
    return answer


def run(quick: bool) -> Section:
    """Evaluations, wall time and equality at 64 checkpoints, cost of an added one up to 128."""
    import torch

    torch.set_num_threads(1)
    n = 8 if quick else CHECKPOINTS
    requests = random_requests(VOCABULARY, PROMPTS, RESPONSES, 16, 80)
    shared = {module: evaluations(requests, module, n) for module in ("q_proj", "down_proj")}
    seconds = timed(requests, 2 * n, max(1, n // 8), 3)
    engine = np.sum(seconds.engine[:n], axis=0)
    batched, alone = (n * np.median(each, axis=0) for each in (seconds.batched, seconds.alone))
    bounds = [1, n // 4, n // 2, n, 2 * n]  # the first has all that is shared
    added = [float(np.median(seconds.engine[a:b], axis=0)[1]) for a, b in itertools.pairwise(bounds)]
    rows = [
        ["token-layer evaluations, shared layers alone, q_proj adapted", f"{shared['q_proj'][0]:.1%}", f"at most {SHARE_BAR:.0%}"],
        ["token-layer evaluations, shared layers alone, down_proj adapted", f"{shared['down_proj'][0]:.1%}", f"at most {SHARE_BAR:.0%}"],
        ["the same, common beginnings shared, too (down_proj)", f"{shared['down_proj'][1]:.1%}", ""],
        [f"engine, {n} checkpoints, wall (processor) time", f"{engine[0]:.1f} s ({engine[1]:.1f} s)", ""],
        *(
            [name, f"{each[0]:.1f} s ({each[1]:.1f} s): {each[0] / engine[0]:.2f}x ({each[1] / engine[1]:.2f}x)", f"at least {SPEED_BAR}x"]
            for name, each in (("plain way in batches sorted by length", batched), ("plain way, one response at a time", alone))
        ),
        ["largest difference of a response's log-likelihood", f"{seconds.difference:.1e} nats", f"at most {EQUAL_BAR:g}"],
        *(
            [f"processor time of a checkpoint, {a + 1}-{b}", f"{each:.3f} s", f"within {CONSTANT_BAR - 1:.0%}"]
            for (a, b), each in zip(itertools.pairwise([0, *bounds[1:]]), added, strict=True)
        ),
    ]
    met = (
        max(shared["q_proj"][0], shared["down_proj"][0]) <= SHARE_BAR
        and batched[0] / engine[0] >= SPEED_BAR
        and seconds.difference <= EQUAL_BAR
        and max(added) <= CONSTANT_BAR * min(added)
    )
    return Section(
        title="Scoring many checkpoints",
        command="python -m tests.benchmarks --only engine_scoring",
        columns=("quantity", "found", "bar"),
        rows=rows,
        bar=f"Bars: as in the table: {'met' if met else 'NOT met'}.",
        notes=[
            f"Llama-style subject of {LAYERS} layers, width {WIDTH}, {VOCABULARY} tokens, random weights; rank-1 adapters in layer "
            f"{LAYERS // 2} read from disk; {PROMPTS} prompts of 24 tokens, {RESPONSES} responses each of 16-80 random tokens, which share "
            "nothing beyond their prompts. float32, one core. The plain way (for each checkpoint load the adapter into peft's model, run "
            "the full forward pass over every response) is timed between the engine's checkpoints and multiplied: its cost does not "
            "depend on the checkpoint. Processor times stand in brackets: on a machine that is busy elsewhere they say more.",
            "An adapter on q_proj leaves what lies below its layer to be shared; one on down_proj leaves the layer itself, too.",
        ],
    )
