"""A subject whose LoRA adapter counts `scale` times as much: what a small early adapter would do if it were larger (METHOD 5)."""

from __future__ import annotations

from typing import Any

from probes.checkpoints import Subjects
from probes.errors import SampleError


class ScaledSubjects:
    """:class:`probes.checkpoints.Subjects` with every adapter's scale multiplied: `W + scale * (alpha / rank) * B A`."""

    def __init__(self, subjects: Subjects, scale: float) -> None:
        """Name the subject and the factor.

        Args:
            subjects: Of one base and its LoRA adapters.
            scale: Any factor; 1 changes nothing, 0 is the base.
        """
        self.steps = subjects.steps
        self._subjects, self._scale = subjects, scale
        self._trained: dict[int, dict[str, float]] = {}

    def at(self, step: int) -> Any:
        """The subject at a step, its adapter scaled.

        Raises:
            SampleError: It has no LoRA adapter whose scale could be changed.
        """
        subject = self._subjects.at(step)
        layers = [module for module in subject.modules() if isinstance(getattr(module, "scaling", None), dict)]
        if not layers and self._scale != 1:
            raise SampleError("expected a subject with a LoRA adapter to scale, found none")
        for layer in layers:
            trained = self._trained.setdefault(id(layer), dict(layer.scaling))
            layer.scaling.update({name: value * self._scale for name, value in trained.items()})
        return subject

    def copy(self) -> ScaledSubjects:
        """Another one, with a subject of its own."""
        return ScaledSubjects(self._subjects.copy(), self._scale)
