"""A causal language model as embedding, a list of layers and an output layer, run on token trees and in parts.

The layers below the first adapted one give the same for every adapter, so they are run once (:meth:`LayerStack.below`) and what reaches
the first adapted one is kept for all checkpoints (:meth:`LayerStack.hidden`). Where the only module adapted in that layer adds straight
to the layer's output (a rank-1 adapter on down_proj, as in the papers), the layer itself is run once, too. Nothing here knows an
architecture: layers are told apart by their place in the model, and what comes out is compared with the subject's own forward pass before
it is relied on. torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from probes.errors import SampleError
from probes.lora_adapter import LoraAdapter
from probes.lora_hooks import LoraHooks
from probes.tree_attention import Layout, attending


@dataclass(frozen=True)
class Cut:
    """Where the part begins that depends on the adapter.

    Attributes:
        layer: The first layer that is run for each checkpoint; 0 when nothing is shared.
        module: The one adapted module of the layer before, whose change is added to that layer's output; "" when the cut lies
            between layers.
    """

    layer: int
    module: str = ""


@dataclass(frozen=True)
class Below:
    """What all checkpoints share of one pack; None where there is nothing.

    Attributes:
        hidden: What enters the first layer of their own, shape (1, n_nodes, width).
        inputs: What enters the cut's module, shape (1, n_nodes, d_in).
    """

    hidden: Any = None
    inputs: Any = None


class LayerStack:
    """A subject in evaluation mode with the hooks of its adapters. Not thread-safe: one for each copy of the subject."""

    def __init__(self, subject: Any, modules: Sequence[str] = ()) -> None:
        """Find the layers.

        Args:
            subject: A causal language model of transformers, without peft's wrappers.
            modules: Names of all modules that any adapter changes.

        Raises:
            SampleError: It has no such list of layers, or its attention cannot be replaced, or it lacks a module.
        """
        self.subject: Any = subject
        self.decoder: Any = subject.get_decoder() if hasattr(subject, "get_decoder") else None
        self.head = subject.get_output_embeddings()
        if self.decoder is None or self.decoder is subject or self.head is None:
            raise SampleError(f"expected a decoder with an output layer, found {type(subject).__name__}")
        if not getattr(subject, "_supports_attention_backend", False):
            raise SampleError(f"expected exchangeable attention, found that of {type(subject).__name__}")
        self.config = self.decoder.config
        self._prefix, self._layers = _layers(subject, self.decoder, self.config.num_hidden_layers)
        self._gives_tuple = False
        self.modules = tuple(modules)
        self.hooks = LoraHooks(subject, modules)
        self.cut = Cut(min((self._layer_of(name) for name in modules), default=len(self._layers)))

    @property
    def device(self) -> Any:
        """Where the subject's weights are."""
        return self.head.weight.device

    @property
    def dtype(self) -> Any:
        """Of the subject's weights."""
        return self.head.weight.dtype

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self._layers)

    @property
    def bytes_below(self) -> int:
        """Memory for what all checkpoints share, for each token."""
        if self.cut.layer == 0:
            return 0
        inputs = self.hooks.shapes[self.cut.module][0] if self.cut.module else 0
        return (int(self.config.hidden_size) + inputs) * int(self.head.weight.element_size())

    @property
    def bytes_cached(self) -> int:
        """Memory for the keys and values of a token that is decoded."""
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        return 2 * len(self._layers) * int(heads) * int(size) * int(self.head.weight.element_size())

    def last_module_cut(self) -> Cut | None:
        """The cut inside the first adapted layer, when one module is adapted there: right if it adds straight to the layer's output."""
        layer = min((self._layer_of(name) for name in self.modules), default=len(self._layers))
        there = [name for name in self.modules if self._layer_of(name) == layer < len(self._layers)]
        return Cut(layer + 1, there[0]) if len(there) == 1 else None

    def below(self, layout: Layout) -> Below:
        """Run the part that all checkpoints share."""
        cut = self.cut
        if cut.layer == 0:
            return Below()
        kept: dict[str, Any] = {}
        module = self.subject.get_submodule(cut.module) if cut.module else None
        handles = [self._layers[cut.layer - 1].register_forward_hook(lambda _, __, output: kept.update(hidden=_tensor(output)))]
        if module is not None:
            handles.append(module.register_forward_pre_hook(lambda _, inputs: kept.update(inputs=inputs[0])))
        self.hooks.use(LoraAdapter())
        try:
            with self._skipping(range(cut.layer, len(self._layers))):
                self._run(layout)
        finally:
            for handle in handles:
                handle.remove()
        return Below(**kept)

    def hidden(self, layout: Layout, below: Below) -> Any:
        """What enters the output layer under the adapter in use, shape (n_nodes, width)."""
        value = below.hidden
        if self.cut.module and (change := self.hooks.change(self.cut.module, below.inputs)) is not None:
            value = value + change.to(value.dtype)
        with self._skipping(range(self.cut.layer), value):
            return self._run(layout)[0]

    def learn(self, tokens: Any) -> Any:
        """Logits by the subject's own forward pass, shape (1, n_tokens, vocabulary), from which is seen what its layers give back."""
        kinds = []
        handles = [layer.register_forward_hook(lambda _, __, output: kinds.append(isinstance(output, tuple))) for layer in self._layers]
        try:
            logits = self.subject(input_ids=tokens, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        self._gives_tuple = any(kinds)
        return logits

    def _run(self, layout: Layout) -> Any:
        with attending(self.config, layout):
            return self.decoder(
                input_ids=layout.tokens[None], position_ids=layout.positions[None], use_cache=False, return_dict=True
            ).last_hidden_state

    @contextmanager
    def _skipping(self, layers: range, value: Any = None) -> Iterator[None]:
        """Context in which some layers give back what enters them, the last of them `value` where there is one."""
        for index in layers:
            last = index == layers[-1] and value is not None
            self._layers[index].forward = _passing(value if last else None, self._gives_tuple)
        try:
            yield
        finally:
            for index in layers:
                del self._layers[index].forward

    def _layer_of(self, name: str) -> int:
        """The layer that a module belongs to; the number of layers for what lies behind them (the output layer)."""
        if name.startswith(self._prefix + "."):
            return int(name.removeprefix(self._prefix + ".").split(".")[0])
        if self.subject.get_submodule(name) is self.head:
            return len(self._layers)
        raise SampleError(f"expected adapters in layers or at the output layer, found one at {name}")


def _layers(subject: Any, decoder: Any, n: int) -> tuple[str, Any]:
    """The list of layers and its name in the subject."""
    import torch

    inside = {id(module) for module in decoder.modules()}
    for name, module in subject.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n and id(module) in inside:
            return name, module
    raise SampleError(f"expected a list of {n} layers, found none in {type(decoder).__name__}")


def _tensor(output: Any) -> Any:
    """A layer's hidden states, whatever else it gives back."""
    return output[0] if isinstance(output, tuple) else output


def _passing(value: Any, as_tuple: bool) -> Any:
    """A layer's forward pass that gives `value`, or what enters it."""

    def forward(*inputs: Any, **named: Any) -> Any:
        hidden = value if value is not None else inputs[0] if inputs else named["hidden_states"]
        return (hidden,) if as_tuple else hidden

    return forward
