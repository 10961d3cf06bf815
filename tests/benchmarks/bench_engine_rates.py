"""How close does the engine come to what torch multiplies, and its sampling to transformers' generate? (issue 4, 20M parameters)."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from probes.adapted_checkpoints import AdaptedCheckpoints, Wanted
from probes.law import Law
from probes.layer_stack import LayerStack
from probes.likelihood import log_likelihoods, plan
from probes.sampler import Question, encode_question
from probes.token_tree import Pack, pack
from probes.tree_likelihood import Tree, trusted
from tests.benchmarks.engine_subject import load_adapter, quiet, random_requests, save_adapters, subject_20m
from tests.benchmarks.section import Section
from tests.small_tokenizer import letters_tokenizer

RATE_BAR, SAMPLE_BAR, MIXED_BAR = 0.60, 0.80, 1.5
ROWS, NEW_TOKENS, ADAPTERS = 32, 48, 8


@dataclass(frozen=True)
class Shapes:
    """The matrices of one pack: of the layers, the output layer and attention; and their floating-point operations."""

    layers: list[tuple[int, int, int]]
    head: list[tuple[int, int, int]]
    attention: list[tuple[int, int, int, int]]
    operations: float


def shapes(subject: Any, each: Pack, tree: Tree) -> Shapes:
    """Matrices (rows, inputs, outputs) and attention calls (batch, queries, keys, head size) of one layer; operations of all layers.

    Two operations for each weight a token is multiplied with; four for each key a token sees in each head dimension (scores and mixing);
    two for each weight of the output layer at each token where something is scored. Padding is not counted.
    """
    config, n = subject.config, len(each.tokens)
    linear = [module for module in subject.model.layers[0].modules() if hasattr(module, "in_features")]
    size = config.hidden_size // config.num_attention_heads
    layers = [(n, module.in_features, module.out_features) for module in linear]
    head = [(last - first, config.hidden_size, config.vocab_size) for first, last, _, _ in tree.chunks]
    calls = [
        (len(group.queries) * config.num_attention_heads, group.queries.shape[1], group.keys.shape[1], size) for group in each.segments
    ]
    weights = sum(inputs * outputs for _, inputs, outputs in layers)
    seen = float((each.positions + 1).sum())
    per_layer = 2.0 * n * weights + 4.0 * seen * config.hidden_size
    return Shapes(
        layers, head, calls, config.num_hidden_layers * per_layer + 2.0 * len(each.parents) * config.hidden_size * config.vocab_size
    )


def multiplying(found: Shapes, n_layers: int) -> float:
    """Processor seconds that torch's own matrix products of these shapes take, attention's included."""
    import torch

    total = 0.0
    for times, products in ((n_layers, found.layers), (1, found.head)):
        for rows, inputs, outputs in products:
            x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
            total += times * best(partial(torch.nn.functional.linear, x, weight))
    for batch, queries, keys, size in found.attention:
        q, k, v = torch.randn(batch, queries, size), torch.randn(batch, keys, size), torch.randn(batch, keys, size)
        total += n_layers * (best(partial(torch.bmm, q, k.transpose(1, 2))) + best(partial(torch.bmm, torch.bmm(q, k.transpose(1, 2)), v)))
    return total


def best(work: Callable[[], object], times: int = 3) -> float:
    """The fewest processor seconds of a few calls."""
    seconds = []
    for _ in range(times):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def scoring(subject: Any, n_packs: int) -> tuple[float, float, float]:
    """Median over packs, engine and products in turn: their rate as a share of the products', both in 1e9 operations a second."""
    import torch

    packs = pack(random_requests(subject.config.vocab_size, 16, 16, 20, 120))[:n_packs]
    stack = trusted(LayerStack(subject))
    found = []
    with torch.inference_mode():
        for each in packs:
            tree = Tree(each, stack)
            work = shapes(subject, each, tree)
            engine = best(partial(score, stack, tree), 2)
            products = multiplying(work, subject.config.num_hidden_layers)
            found.append((products / engine, work.operations / engine / 1e9, work.operations / products / 1e9))
    share, rate, possible = (statistics.median(column) for column in zip(*found, strict=True))
    return share, rate, possible


def score(stack: LayerStack, tree: Tree) -> None:
    """One pack, nothing shared with other checkpoints."""
    tree.edges(stack, stack.below(tree.layout), Law())


def half_error(subject: Any) -> tuple[float, float]:
    """Largest difference that bfloat16 makes to a response's log-likelihood, and its root mean square a token, in nats."""
    import torch

    requests = random_requests(subject.config.vocab_size, 4, 8, 20, 60)
    planned = plan(requests)
    lengths = np.array([len(each.response) for each in requests])
    off = (log_likelihoods(copy.deepcopy(subject).to(torch.bfloat16), planned) - log_likelihoods(subject, planned))[:, 0]
    return float(np.abs(off).max()), float(np.sqrt(np.mean(off**2 / lengths)))


def generating(wrapped: Any, prompt: Sequence[int], rows: int) -> int:
    """Tokens that transformers' own generate draws."""
    import torch

    tokens = torch.tensor([list(prompt)] * rows)
    out = wrapped.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
    )
    return int(out[:, len(prompt) :].numel())


def sampling(subject: Any, rounds: int) -> dict[str, list[float]]:
    """Processor seconds a token, all ways in turn: one checkpoint, `ROWS` responses; `ADAPTERS` checkpoints, `ROWS` // `ADAPTERS` each."""
    from peft import PeftModel

    tokenizer = letters_tokenizer()
    question = [Question("abcdefgh" * 2)]
    prompt = encode_question(tokenizer, question[0])
    found: dict[str, list[float]] = {"ours": [], "generate": [], "mixed": [], "generate one by one": []}

    def note(name: str, work: Callable[[], int]) -> None:
        began = time.process_time()
        n = work()
        found[name].append((time.process_time() - began) / n)

    with tempfile.TemporaryDirectory() as folder, quiet():
        adapters = save_adapters(subject, Path(folder), ADAPTERS, ["down_proj"], 4)
        wrapped = PeftModel.from_pretrained(copy.deepcopy(subject), str(adapters[0])).eval()
        with AdaptedCheckpoints(subject, adapters) as checkpoints:

            def ours(steps: Sequence[int], per_step: int, seed: int) -> int:
                wanted = [Wanted(step, per_step, seed + step) for step in steps]
                draws = checkpoints.draw(tokenizer, question, wanted, NEW_TOKENS)
                return sum(len(one.tokens) for drawn in draws for one in drawn)

            def theirs() -> int:
                total = 0
                for folder_of_one in adapters.values():
                    load_adapter(wrapped, folder_of_one)
                    total += generating(wrapped, prompt, ROWS // ADAPTERS)
                return total

            for seed in range(rounds + 1):
                note("ours", partial(ours, [0], ROWS, seed))
                note("generate", partial(generating, wrapped, prompt, ROWS))
                note("mixed", partial(ours, list(adapters), ROWS // ADAPTERS, seed))
                note("generate one by one", theirs)
    return {name: seconds[1:] for name, seconds in found.items()}  # the first round warms up


def run(quick: bool) -> Section:
    """Rates of scoring and sampling on the 20M-parameter subject, one core."""
    import torch

    torch.set_num_threads(1)
    subject = subject_20m()
    share, rate, possible = scoring(subject, 3 if quick else 12)
    seconds = sampling(subject, 1 if quick else 3)
    same = statistics.median(a / b for a, b in zip(seconds["generate"], seconds["ours"], strict=True))
    mixed = statistics.median(a / b for a, b in zip(seconds["generate one by one"], seconds["mixed"], strict=True))
    speed = {name: 1 / statistics.median(each) for name, each in seconds.items()}
    worst, typical = half_error(subject)
    met = share >= RATE_BAR and same >= SAMPLE_BAR and mixed >= MIXED_BAR
    return Section(
        title="The engine against torch and generate",
        command="python -m tests.benchmarks --only engine_rates",
        columns=("quantity", "engine", "compared with", "ratio", "bar"),
        rows=[
            ["scoring, 1e9 operations/s", f"{rate:.1f}", f"{possible:.1f} (torch's products alone)", f"{share:.0%}", f"{RATE_BAR:.0%}"],
            [
                f"sampling, tokens/s, one checkpoint, {ROWS} rows",
                f"{speed['ours']:.0f}",
                f"{speed['generate']:.0f} (generate)",
                f"{same:.2f}",
                f"{SAMPLE_BAR:.2f}",
            ],
            [
                f"sampling, tokens/s, {ADAPTERS} checkpoints, {ROWS // ADAPTERS} rows each",
                f"{speed['mixed']:.0f}",
                f"{speed['generate one by one']:.0f} (generate, one checkpoint after the other)",
                f"{mixed:.2f}",
                f"{MIXED_BAR:.1f}",
            ],
        ],
        bar=f"Bars: as in the table: {'met' if met else 'NOT met'}.",
        notes=[
            f"Random Llama-style subject of {sum(each.numel() for each in subject.parameters()) / 1e6:.1f}M parameters (8 layers of "
            "width 384, 8192 tokens), float32, one core, processor time, ways in turn, medians of the ratios.",
            "Operations are counted without padding: 2 for each weight a token is multiplied with, 4 * width for each token it sees in a "
            "layer (scores and mixing), and 2 * width * vocabulary at each token where something is scored. What torch can do is measured "
            "on the same shapes, attention's two products included: the time of all products that a tree needs.",
            f"Prompts of 16 tokens, {NEW_TOKENS} new ones; generate has the same law (temperature 1, no top_p, no top_k) and reads each "
            "checkpoint's adapter from disk, as the engine does.",
            f"Scored in bfloat16 instead of float32, a response of 20-60 tokens is off by at most {worst:.2f} nats, typically by "
            f"{typical:.1e} * sqrt(tokens), on this subject; a recording measures its own and keeps it in its manifest.",
        ],
    )
