"""The grid of planted problems: one base problem, and what happens when one thing about it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.errors import ConfigError

SIX_EFFECTS = (0.8, 0.6, 0.5, 0.4, 0.3, 0.3)


@dataclass(frozen=True)
class Cell:
    """One kind of planted problem.

    Attributes:
        name: What it is called in tables and on the command line.
        effects: Log-odds per standardised level of each true parameter; none: nothing that any candidate sees has changed.
        distractors: Candidates that do not move.
        paraphrases: For each true parameter, one more candidate: a second reading of it, kappa .7.
        length_labels: Candidates that see nothing but length.
        affected: Part of the later responses that come from the changed law at all, in [0, 1].
        correlation: Correlation of the latent scores of parameters and distractors.
        length_effect: Log-odds per standard deviation of log length: a true change in length.
        length_correlation: Correlation of the parameters with log length.
        hidden: Standard deviation of the log-odds change that no candidate sees.
        kappa, missing: How well the judge reads, and how often it cannot.
        n_prompts, n_each: Prompts, and responses a side (along a run: a checkpoint that is sampled).
        likelihoods: Whether the log-probabilities are known, or the sides only.
        n_steps: Checkpoints; more than 2: a run with a transition in it, responses from a few of them.
    """

    name: str
    effects: tuple[float, ...] = (0.8, 0.5)
    distractors: int = 3
    paraphrases: bool = True
    length_labels: int = 0
    affected: float = 1.0
    correlation: float = 0.0
    length_effect: float = 0.0
    length_correlation: float = 0.0
    hidden: float = 0.5
    kappa: float = 1.0
    missing: float = 0.0
    n_prompts: int = 20
    n_each: int = 20
    likelihoods: bool = True
    n_steps: int = 2

    @property
    def null(self) -> bool:
        """True when every acceptance is false."""
        return not self.effects


_VARIED: dict[str, dict[str, Any]] = {
    "base": {},
    "same": {"effects": (), "distractors": 5, "hidden": 0.0},
    "parameters-0": {"effects": (), "distractors": 5},
    "parameters-1": {"effects": (0.8,)},
    "parameters-3": {"effects": (0.8, 0.5, 0.4)},
    "parameters-6": {"effects": SIX_EFFECTS},
    "effect-0.2": {"effects": (0.2, 0.2)},
    "effect-0.4": {"effects": (0.4, 0.4)},
    "effect-1.5": {"effects": (1.5, 1.0)},
    "affected-2%": {"effects": (3.0,), "affected": 0.02},
    "affected-10%": {"effects": (3.0,), "affected": 0.1},
    "affected-30%": {"effects": (3.0,), "affected": 0.3},
    "correlation-0.3": {"correlation": 0.3},
    "correlation-0.6": {"correlation": 0.6},
    "correlation-0.6-kappa-0.7": {"correlation": 0.6, "kappa": 0.7},
    "length-seen": {"length_labels": 2},
    "length-changes": {"length_labels": 2, "length_effect": 0.8},
    "length-only": {"effects": (), "length_labels": 3, "distractors": 2, "length_effect": 0.8},
    "length-mixed": {"length_labels": 2, "length_effect": 0.5, "length_correlation": 0.5},
    "kappa-0.9": {"kappa": 0.9},
    "kappa-0.7": {"kappa": 0.7},
    "kappa-0.5": {"kappa": 0.5},
    "parameters-0-kappa-0.7": {"effects": (), "distractors": 5, "kappa": 0.7},
    "missing-2%": {"missing": 0.02},
    "missing-10%": {"missing": 0.1},
    "missing-30%": {"missing": 0.3},
    "prompts-6": {"n_prompts": 6},
    "prompts-10": {"n_prompts": 10},
    "prompts-40": {"n_prompts": 40},
    "prompts-60": {"n_prompts": 60},
    "responses-1": {"n_each": 1},
    "responses-3": {"n_each": 3},
    "responses-10": {"n_each": 10},
    "responses-50": {"n_each": 50},
    "prompts-60-responses-1": {"n_prompts": 60, "n_each": 1},
}
_RUNS: dict[str, dict[str, Any]] = {
    "run": {},
    "run-null": {"effects": (), "distractors": 5},
    "run-kappa-0.7": {"kappa": 0.7},
    "run-prompts-10": {"n_prompts": 10},
}
N_STEPS = 31
ANCHORS = (0, 10, 15, 20, 30)
RUN_RESPONSES = 8


def grid() -> list[Cell]:
    """Every cell: each variation with likelihoods and, as `NAME/sides`, without; then the runs with a transition."""
    pairs = [Cell(name, **options) for name, options in _VARIED.items()]
    runs = [Cell(name, **{"n_steps": N_STEPS, "n_each": RUN_RESPONSES} | options) for name, options in _RUNS.items()]
    return [*pairs, *(replace(cell, name=f"{cell.name}/sides", likelihoods=False) for cell in pairs), *runs]


def chosen_cells(names: Sequence[str]) -> list[Cell]:
    """The cells of these names, all when none is named.

    Raises:
        ConfigError: There is no such cell; the message lists those there are.
    """
    cells = {cell.name: cell for cell in grid()}
    unknown = [name for name in names if name not in cells]
    if unknown:
        raise ConfigError(f"--only {unknown[0]}: expected one of {', '.join(cells)}")
    return [cell for name, cell in cells.items() if not names or name in names]
