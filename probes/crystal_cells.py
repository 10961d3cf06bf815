"""The cells of a crystallization: one task at one stage, its values per phrasing, and how far they fall to another cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import SampleError
from probes.finite_choice import Answers, Choice, each_entropy, entropy, left_out_entropy
from probes.moderated import Difference, Prior, fit_prior, paired_difference, unpaired_difference

FloatArray = npt.NDArray[np.float64]
CellKey = tuple[str, str]  # task, stage

MIN_PHRASINGS = 3
"""With at least this many plain phrasings they alone are measured; with fewer, steered ones count as phrasings too."""
STATISTICS = ("entropy", "options", "variety")


@dataclass(frozen=True)
class Cell:
    """One task at one stage: its answers, and per-phrasing values of the three statistics as parts of their largest value."""

    names: tuple[str, ...]
    all_names: tuple[str, ...]
    answers: Answers
    everything: Answers
    plain: Answers
    outside: float
    values: dict[str, FloatArray]

    @property
    def largest(self) -> dict[str, float]:
        """The unit of each statistic."""
        n = float(self.answers.p.shape[1])
        return {"entropy": 1.0, "options": n, "variety": n}


def measured_cells(choices: Sequence[Choice], options: Mapping[str, tuple[str, ...]], stages: Sequence[str]) -> dict[CellKey, Cell]:
    """Gather one subject's choices into cells.

    Raises:
        SampleError: A choice names an unknown stage or task, has another number of options, or comes twice.
    """
    rows: dict[CellKey, dict[str, Choice]] = {}
    for choice in choices:
        if choice.stage not in stages or choice.task not in options:
            raise SampleError(f"expected a known stage and task, found {choice.stage!r} and {choice.task!r}")
        if len(choice.probability) != len(options[choice.task]):
            raise SampleError(f"{choice.task}: expected {len(options[choice.task])} probabilities, found {len(choice.probability)}")
        cell = rows.setdefault((choice.task, choice.stage), {})
        if choice.phrasing in cell:
            raise SampleError(f"{choice.stage}, {choice.task}: expected every phrasing once, found {choice.phrasing!r} twice")
        cell[choice.phrasing] = choice
    few = {task: min(sum(not c.steered for c in cell.values()) for (t, _), cell in rows.items() if t == task) for task, _ in rows}
    return {key: _cell(list(cell.values()), few[key[0]] >= MIN_PHRASINGS) for key, cell in rows.items()}


def _cell(choices: Sequence[Choice], plain_only: bool) -> Cell:
    ordered = sorted(choices, key=lambda choice: choice.phrasing)
    plain = [choice for choice in ordered if not choice.steered] or ordered
    used = plain if plain_only else ordered
    answers, everything = Answers.of(used), Answers.of(ordered)
    h = each_entropy(answers)
    n = answers.p.shape[1]
    values = {"entropy": h / math.log(n), "options": np.exp(h) / n, "variety": _variety_values(everything) / n}
    names = tuple(choice.phrasing for choice in used), tuple(choice.phrasing for choice in ordered)
    return Cell(*names, answers, everything, Answers.of(plain), float(np.mean([choice.outside for choice in plain])), values)


def _variety_values(answers: Answers) -> FloatArray:
    """Jackknife pseudo-values of exp H of all phrasings together, moved to have that number itself as their mean, shape (n_phrasings,)."""
    whole, n = math.exp(entropy(answers)), len(answers.p)
    if n == 1:
        return np.array([whole])
    left_out = np.exp(left_out_entropy(answers))
    return np.asarray(whole + (n - 1) * (left_out.mean() - left_out))


def _is_paired(before: Cell, after: Cell, statistic: str) -> bool:
    return before.all_names == after.all_names if statistic == "variety" else before.names == after.names


def neighbouring(cells: Mapping[CellKey, Cell], stages: Sequence[str]) -> list[tuple[str, str, str]]:
    """(task, before, after) of neighbouring stages, by task."""
    found = []
    for task in dict.fromkeys(task for task, _ in cells):
        there = [stage for stage in stages if (task, stage) in cells]
        found += [(task, before, after) for before, after in itertools.pairwise(there)]
    return found


def priors_of(cells: Mapping[str, Mapping[CellKey, Cell]], stages: Sequence[str]) -> tuple[dict[str, Prior], dict[str, Prior]]:
    """What all groups say about variances: of one stage's phrasings, and of paired differences."""
    single = {name: fit_prior([cell.values[name] for found in cells.values() for cell in found.values()]) for name in STATISTICS}
    paired = {}
    for name in STATISTICS:
        pairs = [(found[task, a], found[task, b]) for found in cells.values() for task, a, b in neighbouring(found, stages)]
        paired[name] = fit_prior([a.values[name] - b.values[name] for a, b in pairs if _is_paired(a, b, name)])
    return single, paired


def fall(before: Cell, after: Cell, statistic: str, priors: tuple[dict[str, Prior], dict[str, Prior]]) -> Difference:
    """How far the mean of a statistic falls: over the same phrasings where both stages were asked the same, else between two sets."""
    a, b = before.values[statistic], after.values[statistic]
    if _is_paired(before, after, statistic):
        return paired_difference(a, b, priors[1][statistic])
    return unpaired_difference(a, b, priors[0][statistic])
