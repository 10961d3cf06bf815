"""How many judge calls does racing save, and what does it lose? (issue 5: at least half, nothing planted in 95 of 100 runs)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.bench import Row, solve
from agent.bench_cells import Cell
from agent.bench_problems import Problem, problem, world
from tests.benchmarks.section import Section

N_RUNS, N_OTHER_RUNS = 100, 30
N_PERMUTATIONS = 299
LEAST_SAVED, LEAST_KEPT = 0.5, 95
CELLS = (
    *(Cell(f"2 of 12, kappa {kappa:g}", distractors=10, paraphrases=False, kappa=kappa) for kappa in (1.0, 0.8, 0.6)),
    Cell("2 of 12 and 2 paraphrases, kappa 0.8", distractors=10, kappa=0.8),
    Cell("2 of 12, small effects, kappa 0.8", effects=(0.4, 0.3), distractors=10, paraphrases=False, kappa=0.8),
    Cell("2 of 12, sides only, kappa 0.8", distractors=10, paraphrases=False, kappa=0.8, likelihoods=False),
)
BARRED = 3
"""The first cells are held against the bar; the others show what else happens."""


@dataclass(frozen=True)
class Outcome:
    """One problem with and without racing: calls, planted parameters accepted, false ones accepted."""

    calls: tuple[int, int]
    planted: tuple[frozenset[str], frozenset[str]]
    false: tuple[int, int]


def outcome(one: Problem) -> Outcome:
    """Both ways on the same responses, readings and candidates."""
    whole, raced = (solve(one, N_PERMUTATIONS, race) for race in ("off", "on"))
    return Outcome((whole["calls"], raced["calls"]), (_planted(whole), _planted(raced)), (_false(whole), _false(raced)))


def _planted(row: Row) -> frozenset[str]:
    return frozenset(c["id"] for c in row["candidates"] if c["kind"] == "true" and c["accepted"])


def _false(row: Row) -> int:
    return sum(c["accepted"] and c["kind"] == "distractor" and not c["stands_in"] for c in row["candidates"])


def run(quick: bool) -> Section:
    """Every cell, problem by problem."""
    rows, misses = [], []
    for k, cell in enumerate(CELLS):
        n = 1 if quick else N_RUNS if k < BARRED else N_OTHER_RUNS
        population = world(cell, 0)
        found = [outcome(problem(population, r, 0)) for r in range(n)]
        calls = np.array([o.calls for o in found]).sum(axis=0)
        saved = 1 - calls[1] / calls[0]
        kept = sum(o.planted[0] <= o.planted[1] for o in found)
        accepted = [sum(len(o.planted[j]) for o in found) for j in (0, 1)]
        false = [sum(o.false[j] for o in found) for j in (0, 1)]
        rows.append(
            [
                cell.name,
                f"{calls[0] / n:,.0f}",
                f"{calls[1] / n:,.0f}",
                f"{saved:.0%}",
                f"{kept} of {n}",
                f"{accepted[0]} / {accepted[1]} of {2 * n}",
                f"{false[0]} / {false[1]}",
            ]
        )
        if k < BARRED and (saved < LEAST_SAVED or kept < LEAST_KEPT / 100 * n):
            misses.append(cell.name)
    met = "met" if not misses else f"NOT met ({'; '.join(misses)})"
    return Section(
        title="Racing saves half of the judge calls",
        command="python -m tests.benchmarks --only economy_racing",
        columns=(
            "run",
            "calls, all read",
            "calls, raced",
            "saved",
            "nothing planted lost",
            "planted accepted, all read / raced",
            "false accepted, all read / raced",
        ),
        rows=rows,
        bar=f"Bar, first {BARRED} rows: at least {LEAST_SAVED:.0%} of the calls saved, no planted parameter lost in at least "
        f"{LEAST_KEPT} of 100 runs: {met}.",
        notes=[
            f"Problems: 20 prompts, 20 responses a side and prompt, 2 planted parameters (effects .8 and .5 unless small) among "
            "10 candidates that do not move, five a round until two rounds in a row find nothing: the proposer's usual yield. Calls are "
            "readings of one response on one candidate, second readings of what is accepted included. Lost: accepted when everything is "
            f"read, not accepted when raced. {N_PERMUTATIONS} permutations."
        ],
    )
