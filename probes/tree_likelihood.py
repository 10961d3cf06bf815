"""Log-probabilities of a tree of tokens: one forward pass, output layer only where something is scored.

Also the proof, at the start of every piece of work, that they are those of the subject's own forward pass. torch is imported inside
functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError
from probes.law import Law
from probes.layer_stack import Below, Cut, LayerStack
from probes.lora_adapter import Factors, LoraAdapter
from probes.request import Request
from probes.token_tree import Pack, pack
from probes.tree_attention import Layout

LOGITS = 1 << 19
"""Logits held at a time on a processor, so that they stay in its cache, and at least those of `ROWS` tokens, so that multiplying pays."""
ROWS = 64
TOLERANCE = 2e-4
"""Largest difference (nats a token) from the subject's own forward pass that rounding explains in float32 ..."""
HALF_TOLERANCE = 0.25
"""... and in bfloat16 or float16, where the two passes round differently."""
_found: WeakKeyDictionary[Any, dict[tuple[str, ...], Cut | str]] = WeakKeyDictionary()


class Tree:
    """A pack on a subject's device."""

    def __init__(self, pack: Pack, stack: LayerStack) -> None:
        import torch

        self.pack = pack
        self.layout = Layout(pack, stack.device)
        self._parents, self._edge_parent, self._edge_token = (
            torch.from_numpy(each).to(stack.device) for each in (pack.parents, pack.edge_parent, pack.edge_token)
        )
        rows = max(ROWS, (LOGITS if stack.device.type == "cpu" else 128 * LOGITS) // stack.head.weight.shape[0])
        bounds = [*range(0, len(pack.parents), rows), len(pack.parents)]
        edges = np.searchsorted(pack.edge_parent, bounds).tolist()
        self.chunks = list(zip(bounds[:-1], bounds[1:], edges[:-1], edges[1:], strict=True))

    def edges(self, stack: LayerStack, below: Below, law: Law) -> npt.NDArray[np.float64]:
        """Log-probability of every edge in nats under the adapter in use, shape (n_edges,)."""
        import torch

        hidden = stack.hidden(self.layout, below)
        found = []
        for first, last, begin, end in self.chunks:
            logits = law.logits(stack.head(hidden[self._parents[first:last]]))
            parent = self._edge_parent[begin:end] - first
            chosen = logits[parent, self._edge_token[begin:end]]
            found.append(chosen - _log_sum_exp(logits)[parent])
        whole: npt.NDArray[np.float64] = torch.cat(found).cpu().double().numpy()
        return whole


def _log_sum_exp(logits: Any) -> Any:
    """Of each row; the logits are used up: at these sizes new memory costs more than the arithmetic."""
    largest = logits.amax(-1, keepdim=True)
    return logits.sub_(largest).exp_().sum(-1).log_().add_(largest[:, 0])


def trusted(stack: LayerStack) -> LayerStack:
    """The same stack, after trees, shared layers and adapters gave what the subject's own forward pass gives on random texts.

    The cut inside the first adapted layer is taken where it passes the same test. What was found is remembered for the subject.

    Raises:
        SampleError: They differ by more than rounding: this architecture does something else.
    """
    known = _found.setdefault(stack.subject, {})
    if stack.modules not in known:
        try:
            tested = _tested_cut(stack)
        except SampleError as error:
            tested = str(error)
        if tested is None:
            return stack
        known[stack.modules] = tested
    found = known[stack.modules]
    if isinstance(found, str):
        raise SampleError(found)
    stack.cut = found
    return stack


def _tested_cut(stack: LayerStack) -> Cut | str | None:
    """The cut that passes; None where the weights are broken, which is found and named where they score something."""
    import torch

    rng = np.random.default_rng(0)
    texts = _random_requests(rng, stack.head.weight.shape[0])
    trees = [Tree(each, stack) for each in pack(texts)]
    adapter = _random_adapter(rng, stack)
    between, inside = stack.cut, stack.last_module_cut()
    with torch.inference_mode():
        stack.hooks.use(adapter)
        exact = [_own(stack, text) for text in texts]
        if not all(np.isfinite(each).all() for each in exact):
            return None
        bound = HALF_TOLERANCE if stack.dtype in (torch.float16, torch.bfloat16) else TOLERANCE
        worst = _distance(stack, trees, adapter, exact)
        if not worst <= bound:
            raise SampleError(f"expected the log-probabilities of the subject's own forward pass, found a difference of {worst:.2g} nats")
        if inside is None:
            return between
        stack.cut = inside
        return inside if _distance(stack, trees, adapter, exact) <= bound else between


def _random_requests(rng: np.random.Generator, vocabulary: int) -> list[Request]:
    """Two prompts, three responses each, of different lengths; two begin alike."""
    prompts = [tuple(map(int, rng.integers(0, vocabulary, size))) for size in (3, 7)]
    responses = [tuple(map(int, rng.integers(0, vocabulary, size))) for size in (1, 4, 9)]
    responses[2] = responses[1][:2] + responses[2][2:]
    return [Request(prompt, response) for prompt in prompts for response in responses]


def _random_adapter(rng: np.random.Generator, stack: LayerStack) -> LoraAdapter:
    """Rank one at every module, large enough to show."""
    return LoraAdapter(
        {
            name: Factors(rng.normal(size=(1, d_in)).astype(np.float32), rng.normal(size=(d_out, 1)).astype(np.float32), 0.3 / d_in**0.5)
            for name, (d_in, d_out) in stack.hooks.shapes.items()
        }
    )


def _own(stack: LayerStack, request: Request) -> npt.NDArray[np.float64]:
    """Nats of each token of the response by the subject's own forward pass."""
    import torch

    tokens = torch.tensor([request.prompt + request.response], device=stack.device)
    logits = Law().logits(stack.learn(tokens)[0, len(request.prompt) - 1 : -1])
    chosen = logits.gather(1, tokens[0, len(request.prompt) :, None])[:, 0] - logits.logsumexp(-1)
    found: npt.NDArray[np.float64] = chosen.cpu().double().numpy()
    return found


def _distance(stack: LayerStack, trees: Sequence[Tree], adapter: LoraAdapter, exact: Sequence[npt.NDArray[np.float64]]) -> float:
    """Largest difference of a token's log-probability; infinite where the tree cannot be run at all."""
    worst = 0.0
    for tree in trees:
        try:
            below = stack.below(tree.layout)
            stack.hooks.use(adapter)
            edges = np.append(tree.edges(stack, below, Law()), np.nan)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise SampleError(f"expected an architecture whose layers can be run alone, found {type(error).__name__}: {error}") from error
        for row, path, length in zip(tree.pack.rows, tree.pack.paths, tree.pack.lengths, strict=True):
            worst = max(worst, float(np.abs(edges[path[:length]] - exact[row]).max()))
    return worst
