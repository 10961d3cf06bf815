"""How a run's LoRA adapters moved: local cosine, norms, trajectory PCA, rotation, and comp scores between runs (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.records import Estimate, MechanismRecord, RepeatedRecord
from probes.errors import SampleError
from probes.lora import comp_score, gram_of_b, leg_lengths, local_cosine, normalised, norms, rotation, trajectory_pca
from probes.repeated_runs import cross_grams, mean_cosine, rotation_over_runs
from tracing.adapters import Adapters, read_adapters
from tracing.errors import AdaptersError

COMPONENTS = 2
DIGITS = 6
"""Significant digits kept of every number of the trajectory: the factors are float32."""


def mechanism_record(path: str | Path, ks: Sequence[int] | None = None) -> MechanismRecord | None:
    """The trajectory of the adapters under a folder.

    Args:
        path: A run directory, or any folder of `step-N` or `checkpoint-N` folders that hold adapters.
        ks: Leg lengths in checkpoints; 5% to 16% of the run when None.

    Returns:
        None when no adapters lie there, fewer than three, or none that moves.

    Raises:
        tracing.errors.AdaptersError: Adapters lie there and cannot be read.
        SampleError: A leg length does not fit.
    """
    folder = Path(path)
    if not (folder / "adapters").is_dir() and not any(folder.glob("*/adapter_config.json")):
        return None
    adapters = read_adapters(folder)
    moves = any((factors.b != factors.b[0]).any() for factors in adapters.modules.values())
    return trajectory_record(adapters, ks) if len(adapters.steps) >= 3 and moves else None


def trajectory_record(adapters: Adapters, ks: Sequence[int] | None = None) -> MechanismRecord:
    """The same of adapters in memory.

    Raises:
        SampleError: A leg length does not fit, or the adapters never move.
    """
    gram = gram_of_b(factors.b for factors in adapters.modules.values())
    directions = normalised(gram)
    lengths = leg_lengths(len(gram)) if ks is None else tuple(ks)
    principal = trajectory_pca(gram, COMPONENTS)
    return MechanismRecord(
        steps=adapters.steps,
        modules=tuple(adapters.modules),
        cosine={str(k): _plain(local_cosine(gram, k)) for k in lengths},
        cosine_normalised={str(k): _plain(local_cosine(directions, k)) for k in lengths},
        norms=tuple(_rounded(value) for value in norms(gram)),
        principal=tuple(tuple(_rounded(value) for value in row) for row in principal.coordinates),
        explained=tuple(_rounded(value) for value in principal.explained),
        warning=principal.warning,
        rotation=_place(gram, adapters.steps, ks),
        rotation_normalised=_place(directions, adapters.steps, ks),
    )


def repeated_record(folders: Sequence[Path], ks: Sequence[int] | None = None) -> RepeatedRecord:
    """Where the adapters of runs with the same start and other documents turn on average.

    Raises:
        AdaptersError: A folder holds no adapters, or runs differ in steps, modules or the adapter they start from.
        SampleError: Too few runs or checkpoints.
    """
    read = [read_adapters(folder) for folder in folders]
    first = read[0]
    for folder, other in zip(folders[1:], read[1:], strict=True):
        _check_repeats(str(folders[0]), first, str(folder), other)
    cross = cross_grams([[(f.a, f.b, f.scale) for f in each.modules.values()] for each in read])
    found = rotation_over_runs(cross, first.steps, ks)
    n = len(read)
    return RepeatedRecord(
        runs=tuple(str(folder) for folder in folders),
        steps=first.steps,
        cosine=_plain(mean_cosine(cross, ks).estimate),
        rotation=None if found is None else Estimate(estimate=found.step, low=found.low, high=found.high, n=n, note="over runs"),
        prominence=None if found is None else Estimate(estimate=found.prominence, low=found.prominence_low, n=n),
    )


def _check_repeats(first_name: str, first: Adapters, name: str, other: Adapters) -> None:
    if other.steps != first.steps or list(other.modules) != list(first.modules):
        raise AdaptersError(
            f"{name}: expected the {len(first.steps)} steps and {len(first.modules)} module(s) of {first_name}, "
            f"found {len(other.steps)} steps and {len(other.modules)} module(s) or others of the same number"
        )
    if any(not np.array_equal(first.modules[m].a[0], other.modules[m].a[0]) for m in first.modules):
        raise AdaptersError(
            f"{name}: expected the adapter that {first_name} starts from (the same initial A), found another: paths from other starts have "
            "no common mean; train again with the same seed of the adapter and other documents"
        )


def comp_scores(folders: Sequence[Path]) -> dict[tuple[str, str], dict[str, float]]:
    """Comp score of every pair of runs' last adapters, for every module that both have: (folder, folder) -> module -> score in [0, 1].

    Raises:
        AdaptersError: A folder holds no adapters, or two have no module in common.
        SampleError: An adapter changes nothing.
    """
    read = {str(folder): read_adapters(folder) for folder in folders}
    found = {}
    names = list(read)
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            shared = [module for module in read[first].modules if module in read[second].modules]
            if not shared:
                raise AdaptersError(f"{first}, {second}: expected adapters with a module in common, found none")
            found[first, second] = {module: comp_score(_last(read[first], module), _last(read[second], module)) for module in shared}
    return found


def _last(adapters: Adapters, module: str) -> tuple[np.ndarray, np.ndarray]:
    factors = adapters.modules[module]
    return factors.a[-1], factors.b[-1]


def _place(gram: np.ndarray, steps: tuple[int, ...], ks: Sequence[int] | None) -> Estimate | None:
    try:
        found = rotation(gram, steps, ks)
    except SampleError:
        return None  # too few checkpoints for any leg length
    return (
        None if found is None else Estimate(estimate=found.step, low=found.low, high=found.high, n=len(steps), note="range over settings")
    )


def _plain(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(_rounded(value) if np.isfinite(value) else None for value in values)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
