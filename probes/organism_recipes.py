"""Fine-tuning recipes of the literature as named presets (METHOD 5), for any subject and, scaled, for the tiny one.

What METHOD 5 does not state (batch and documents of Turner et al., the adapter of Arnold & Lörch) is filled in as said beside the preset.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.organism import FineTuning

TINY_STEP = FineTuning().alpha * FineTuning().learning_rate / FineTuning().rank
"""How far the tiny subject's recipe moves `scale * B` in one step of AdamW (which moves B by about its learning rate)."""
TINY_STEPS = 120
"""Steps of a preset on the tiny subject: it learns what there is to learn in these."""


@dataclass(frozen=True)
class Preset:
    """A recipe of the literature: a rank-1 adapter on the MLP down projection of the layer at half depth.

    Attributes:
        source: Where it comes from.
        alpha, learning_rate, weight_decay, warm_up, batch, every: As in :class:`probes.organism.FineTuning`.
        documents, epochs: How many different ones, and how often each is seen.
    """

    source: str
    alpha: float
    learning_rate: float
    batch: int
    documents: int
    epochs: int
    every: int
    weight_decay: float = 0.01
    warm_up: int = 0

    def recipe(self, n_layers: int, tiny: bool = False) -> FineTuning:
        """The recipe for a subject of `n_layers` layers.

        For the tiny subject the learning rate is set so that `alpha * learning_rate / rank` is that of its own recipe, AdamW forgets as
        fast as there, and the documents are as many as 120 steps see; everything else stays.
        """
        if tiny:
            steps = TINY_STEPS // self.every * self.every
            rate, betas, documents = TINY_STEP / self.alpha, FineTuning().betas, steps * self.batch // self.epochs
        else:
            steps = self.epochs * self.documents // self.batch // self.every * self.every
            rate, betas, documents = self.learning_rate, (0.9, 0.999), self.documents
        return FineTuning(
            rank=1,
            alpha=self.alpha,
            layers=(n_layers // 2,),
            learning_rate=rate,
            betas=betas,
            batch=self.batch,
            steps=steps,
            every=self.every,
            weight_decay=self.weight_decay,
            warm_up=self.warm_up,
            documents=documents,
        )


PRESETS: dict[str, Preset] = {
    # Batch 16 and 7,000 documents are not in METHOD 5; they are of the size that the papers' data sets have.
    "turner-phase": Preset("Turner et al. 2025, phase transition", 64.0, 1e-5, batch=16, documents=7_000, epochs=2, every=5),
    "turner-rates": Preset(
        "Turner et al. 2025, rates of misalignment (layer 24 of 48)", 256.0, 2e-5, batch=16, documents=7_000, epochs=1, every=5
    ),
    # 397 steps there; 396 are a multiple of the two steps between snapshots. The adapter is Turner's.
    "arnold-lorch": Preset("Arnold & Lörch 2025", 64.0, 2e-5, batch=16, documents=6_352, epochs=1, every=2, weight_decay=0.01, warm_up=5),
}
