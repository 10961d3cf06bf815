"""Do shares still cover once a parameter was accepted? What is accepted was found large on the very responses its share is measured on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.bench_cells import Cell
from agent.bench_problems import world
from probes.explained_share import explained
from tests.benchmarks.bench_decisions import EFFECTS, decided
from tests.benchmarks.section import Section

SETTINGS: dict[str, Cell] = {
    "likelihoods, 20 x 20": Cell("acceptance", paraphrases=False),
    "likelihoods, 12 x 10": Cell("acceptance", paraphrases=False, n_prompts=12, n_each=10),
    "likelihoods, judge kappa .7, 20 x 20": Cell("acceptance", paraphrases=False, kappa=0.7),
    "sides, 20 x 20": Cell("acceptance", paraphrases=False, likelihoods=False),
}
SIZES = ((0.0, 0.05), (0.05, 0.1), (0.1, 0.3), (0.3, 2.0))
Found = tuple[float, bool, float, bool]
"""(true share, accepted, error, covered) of one planted parameter in one run."""


def measured(cell: Cell, n_runs: int) -> list[Found]:
    """Every planted parameter that was tested: its share (D[O] without likelihoods) on the confirm half against the exact one."""
    out = []
    for k, (effects, hidden) in enumerate(EFFECTS):
        population = world(replace(cell, effects=effects, hidden=hidden), 71 + k)
        exact = population.shares()
        unit = exact.total if cell.likelihoods else 1.0
        truth = [exact.change([i]) / unit for i in range(len(effects))]
        for number in range(n_runs):
            outcome = decided(population, 72, number)
            for i in sorted(outcome.tested & set(range(len(effects)))):
                part = explained(outcome.confirm, [outcome.level[i, outcome.rows]])
                share = part.share_interval if cell.likelihoods else part.change_interval
                out.append((truth[i], i in outcome.accepted, share.estimate - truth[i], share.low <= truth[i] <= share.high))
    return out


def rows_of(what: str, found: list[Found]) -> tuple[list[list[str]], list[float]]:
    """Table rows by size of the true share, and the coverages of all tested and of all accepted."""
    rows, coverage = [], []
    for low, high in (*SIZES, (0.0, 2.0)):
        part = [f for f in found if low <= f[0] < high]
        size = "all" if high - low == 2 else f"{low:g} and more" if high > 1 else f"{low:g} to {high:g}"
        groups = [part, [f for f in part if f[1]]]
        cells = []
        for group in groups:
            errors, covered = [f[2] for f in group], [f[3] for f in group]
            cells += [str(len(group)), f"{np.mean(errors):+.3f}", f"{100 * np.mean(covered):.1f}%"] if group else ["0", "", ""]
        if part:
            rows.append([what, size, *cells])
        if size == "all":
            coverage = [float(np.mean([f[3] for f in group])) for group in groups if group]
    return rows, coverage


def run(quick: bool) -> Section:
    """Bias and coverage of shares of all tested and of the accepted parameters (issue: coverage given acceptance is stated)."""
    n_runs = 5 if quick else 60
    rows, coverage = [], []
    for what, cell in SETTINGS.items():
        new, both = rows_of(what, measured(cell, n_runs))
        rows += new
        coverage.append(f"{what}: {' and '.join(f'{100 * c:.1f}%' for c in both)}")
    return Section(
        title="Shares of accepted parameters",
        command="python -m tests.benchmarks --only acceptance",
        columns=(
            "where",
            "true share",
            "tested",
            "bias",
            "coverage of 95%",
            "accepted",
            "bias given acceptance",
            "coverage given acceptance",
        ),
        rows=rows,
        bar=f"Coverage of all tested and given acceptance: {'; '.join(coverage)}.",
        notes=[
            "Shares are D[O]/D with likelihoods, D[O] itself from sides, as the judge reads them. A share too small to be accepted at "
            "this size is accepted only when it was overestimated: there the bias given acceptance is positive by construction.",
        ],
    )
