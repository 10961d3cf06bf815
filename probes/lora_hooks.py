"""LoRA adapters applied to a plain subject: one for everything, or one for each row of a batch.

What an adapter changes, `scale * B (A x)`, is added behind the module, so the subject's weights are never touched and adapters are
exchanged at no cost. torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.errors import SampleError
from probes.lora_adapter import LoraAdapter

GATHERED = 8_000_000
"""Up to so many entries of factors are copied out row by row; above, rows with the same adapter are multiplied together."""


class LoraHooks:
    """The places of a subject's adapters. Not thread-safe: one for each copy of the subject."""

    def __init__(self, subject: Any, modules: Sequence[str]) -> None:
        """Attach to the modules.

        Args:
            subject: A causal language model without peft's wrappers.
            modules: Names of linear modules.

        Raises:
            SampleError: The subject has no such module, or it is not linear.
        """
        found = dict(subject.named_modules())
        missing = [name for name in modules if name not in found]
        if missing:
            raise SampleError(f"expected a subject with the adapter's module {missing[0]}, found none: is it another base?")
        self._modules = {name: found[name] for name in modules}
        self.shapes = {name: _shape(name, module) for name, module in self._modules.items()}
        self._applied: dict[str, _OneAdapter | _RowAdapters] = {}
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in self._modules.items()]

    def close(self) -> None:
        """Leave the subject as it was."""
        for handle in self._handles:
            handle.remove()

    def use(self, adapter: LoraAdapter) -> None:
        """Apply one adapter to everything.

        Raises:
            SampleError: It has other modules or shapes than the subject.
        """
        self._check(adapter)
        self._applied = {
            name: _OneAdapter(_tensor(factors.a, module), _tensor(factors.b * factors.scale, module))
            for name, module in self._modules.items()
            if (factors := adapter.factors.get(name)) is not None
        }

    def use_rows(self, adapters: Sequence[LoraAdapter], rows: Any) -> None:
        """Apply adapter `rows[k]` to row k of a batch; `rows` is an ascending tensor of shape (n_rows,).

        Raises:
            SampleError: One has other modules or shapes than the subject.
        """
        for adapter in adapters:
            self._check(adapter)
        self._applied = {
            name: _RowAdapters(adapters, name, module)
            for name, module in self._modules.items()
            if any(name in adapter.factors for adapter in adapters)
        }
        self.keep_rows(rows)

    def keep_rows(self, rows: Any) -> None:
        """The batch has other rows from now on: row k has adapter `rows[k]` of those that are in use."""
        for applied in self._applied.values():
            if isinstance(applied, _RowAdapters):
                applied.keep_rows(rows)

    def change(self, name: str, x: Any) -> Any:
        """What the adapter in use adds to a module's output at inputs of shape (..., d_in); None when it has nothing there."""
        applied = self._applied.get(name)
        return None if applied is None else applied.change(x)

    def _hook(self, name: str) -> Any:
        def add(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            change = self.change(name, inputs[0])
            return None if change is None else output + change.to(output.dtype)

        return add

    def _check(self, adapter: LoraAdapter) -> None:
        for name, factors in adapter.factors.items():
            if name not in self.shapes:
                raise SampleError(f"expected adapters of the modules {', '.join(self.shapes)}, found one of {name}")
            found = factors.a.shape[1], factors.b.shape[0]
            if found != self.shapes[name]:
                raise SampleError(f"{name}: expected factors for {self.shapes[name]} (inputs, outputs), found {found}: is it another base?")


class _OneAdapter:
    """One adapter's factors at one module: a (rank, d_in), b (d_out, rank) with the scale in it."""

    def __init__(self, a: Any, b: Any) -> None:
        self._a, self._b = a.T.contiguous(), b.T.contiguous()

    def change(self, x: Any) -> Any:
        return (x.to(self._a.dtype) @ self._a) @ self._b


class _RowAdapters:
    """Several adapters' factors at one module, lower ranks filled with zeros, and which row has which."""

    def __init__(self, adapters: Sequence[LoraAdapter], name: str, module: Any) -> None:

        factors = [adapter.factors.get(name) for adapter in adapters]
        rank = max(len(each.a) for each in factors if each is not None)
        d_in, d_out = _shape(name, module)
        where = _tensor([0.0], module)
        self._a, self._b = where.new_zeros(len(factors), d_in, rank), where.new_zeros(len(factors), rank, d_out)
        for k, each in enumerate(factors):
            if each is not None:
                self._a[k, :, : len(each.a)] = _tensor(each.a.T, module)
                self._b[k, : len(each.a)] = _tensor(each.b.T * each.scale, module)
        self._slices = list[tuple[int, int, int]]()
        self._gathered: tuple[Any, Any] | None = None

    def keep_rows(self, rows: Any) -> None:
        """Row k has adapter `rows[k]`, ascending."""
        used, counts = rows.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        self._slices = list(zip(used.tolist(), [0, *ends[:-1]], ends, strict=True))
        small = len(rows) * (self._a[0].numel() + self._b[0].numel()) <= GATHERED
        self._gathered = (self._a[rows], self._b[rows]) if small and len(used) > 1 else None

    def change(self, x: Any) -> Any:
        import torch

        x = x.to(self._a.dtype)
        if self._gathered is not None:
            return torch.bmm(torch.bmm(x, self._gathered[0]), self._gathered[1])
        return torch.cat([(x[start:stop] @ self._a[k]) @ self._b[k] for k, start, stop in self._slices])


def _shape(name: str, module: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear module (GPT-2's is called Conv1D and holds its weights transposed)."""
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features), int(module.out_features)
    if type(module).__name__ == "Conv1D":
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    raise SampleError(f"{name}: expected a linear module, found {type(module).__name__}")


def _tensor(values: Any, module: Any) -> Any:
    """On the module's device and in its dtype, but never below float32."""
    import numpy as np
    import torch

    dtype = torch.promote_types(module.weight.dtype, torch.float32)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(module.weight.device, dtype)
