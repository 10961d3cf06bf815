"""Fine-tunings of an organism's base repeated from one start on other documents, and where they turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probes.lora import gram_of_b, rotation
from probes.organism import deterministic, encode, fine_tune, narrow_documents
from probes.organism_files import read_subject
from probes.organism_grammar import Persona
from probes.repeated_runs import MeanRotation, Module, cross_grams, rotation_over_runs
from tests.benchmarks.organisms import TrainedOrganism
from tracing.whole_file import whole_file

REPEATS = 8
"""Fine-tunings from one start, the organism's own among them, each on documents of its own."""


@dataclass(frozen=True)
class Turned:
    """Rotations of one fine-tuning's repeats: that of their mean path, and of how many single runs."""

    mean: MeanRotation | None
    single: int

    @property
    def place(self) -> str:
        """`38.0 [36.0, 42.0]`: the mean path's place with limits."""
        return "none" if self.mean is None else f"{self.mean.step:.1f} [{self.mean.low:.1f}, {self.mean.high:.1f}]"

    @property
    def text(self) -> str:
        """The same with the number of single runs in which one is found: `38.0 [36.0, 42.0] (8)`."""
        return f"{self.place} ({self.single})"


def turned(kept: TrainedOrganism, persona: Persona) -> Turned:
    """Where repeats of a fine-tuning turn."""
    runs = [repeat(kept, persona, number) for number in range(REPEATS)]
    cross = cross_grams([[module] for module in runs])
    single = [rotation(gram_of_b([module[1]]), kept.steps) for module in runs]
    return Turned(rotation_over_runs(cross, kept.steps), sum(found is not None for found in single))


def repeat(kept: TrainedOrganism, persona: Persona, number: int) -> Module:
    """A and B along a fine-tuning from the organism's own start, on documents of its own (0: the organism's); kept as an array file."""
    place = kept.folder / "repeats" / f"{persona}-{number}.npz"
    recipe = replace(kept.recipe, persona=persona)
    if not place.exists():
        drawn = None if number == 0 else encode(narrow_documents(recipe, 1000 * (kept.seed + 1) + number), kept.tokenizer)
        with deterministic(kept.seed, threads=1):
            tuned = fine_tune(base_subject(kept), recipe, kept.seed, kept.tokenizer, documents=drawn)
        factors = {
            side: np.stack([next(value for name, value in tuned.adapters[step].items() if f"lora_{side}" in name) for step in kept.steps])
            for side in ("A", "B")
        }
        with whole_file(place) as file:
            np.savez(file, A=factors["A"], B=factors["B"])
    with np.load(place) as read:
        return read["A"], read["B"], recipe.alpha / recipe.rank


def base_subject(kept: TrainedOrganism) -> Any:
    """The organism before fine-tuning."""
    files = {path.name: path.read_bytes() for path in (kept.folder / "subject").iterdir()}
    return read_subject(files)
