"""Is what is accepted there, and is what is there accepted? Nulls, paraphrases, length, recall, and three rules that rivals use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from agent.bench import solve
from agent.bench_card import false_acceptances
from agent.bench_cells import Cell
from agent.bench_problems import N_LEVELS, POPULATION, World, problem, world
from agent.bench_rivals import RIVALS, rival_accepts
from agent.contrasts import confirm_half
from agent.decide import Rule, decide, passed_on, round_level
from agent.nodes import ENOUGH_EMPTY_ROUNDS
from probes.dissimilarity import Contrast
from probes.explained_share import length_bins
from probes.synthetic import contrast_of, draw
from tests.benchmarks.section import Section

ALPHA, MIN_SHARE, ROUNDS, A_ROUND, PERMUTATIONS = 0.05, 0.02, 6, 5, 2000
"""The defaults of METHOD 4."""
SIZES = ((20, 20), (10, 10), (40, 5))
LARGE = 0.05
_NULL = Cell("null", effects=(), distractors=10, paraphrases=False)
_LENGTH = replace(_NULL, distractors=5, length_labels=5, length_effect=0.8)
NULLS = {
    "a change that no candidate sees, likelihoods": _NULL,
    "a change that no candidate sees, sides": replace(_NULL, likelihoods=False),
    "nothing changed, sides": replace(_NULL, hidden=0.0, likelihoods=False),
    "length changed, half of the labels see it, likelihoods": _LENGTH,
    "length changed, half of the labels see it, sides": replace(_LENGTH, likelihoods=False),
    "a change that no candidate sees, judge kappa .7": replace(_NULL, kappa=0.7),
}
EFFECTS = (((1.0, 0.5), 0.5), ((0.8, 0.6, 0.4), 0.5), ((0.8, 0.6, 0.5, 0.4, 0.3, 0.3), 0.5), ((0.5, 0.35), 1.0), ((0.35, 0.35, 0.3), 0.9))
"""Of the true parameters, and the spread of the change that nobody sees: from easy to small shares of a change mostly unexplained."""


@dataclass(frozen=True)
class Outcome:
    """What was decided about a drawn problem: per candidate of the world whether it was tested, and its place if accepted.

    `level` are the first readings `(n_candidates, n)` of all responses and `after` their side: what the rivals get. `confirm` is the
    half on which shares are measured, `rows` its responses.
    """

    tested: frozenset[int]
    accepted: tuple[int, ...]
    level: np.ndarray
    after: np.ndarray
    confirm: Contrast
    rows: np.ndarray


def read(true: np.ndarray, cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """One reading by the cell's judge."""
    seen = np.where(rng.random(true.shape) < cell.kappa, true, rng.integers(0, N_LEVELS, true.shape))
    return np.where(rng.random(true.shape) < cell.missing, -1, seen)


def decided(population: World, seed: int, number: int) -> Outcome:
    """Draw a problem and decide it: the same split, rounds, levels and tests as in the loop, on arrays instead of texts."""
    cell = population.cell
    rng = np.random.default_rng([seed, number, cell.n_prompts, cell.n_each])
    prompts = rng.choice(POPULATION, cell.n_prompts, replace=False)
    sample = draw(population.run.at_prompts(prompts), [0, 1], cell.n_each, rng)
    contrast = contrast_of(sample, [0], [1], likelihoods=cell.likelihoods)
    where = (slice(None), prompts[sample.prompt], sample.outcome)
    true = population.run.labels[where]
    first, second = read(true, cell, rng), read(true, cell, rng)
    half = contrast.complete(confirm_half(contrast, int(rng.integers(2**31))))
    confirm, rows = contrast.take(half), contrast.index[half]
    length = length_bins(population.words[where[1:]][contrast.index])[half]
    waiting = [int(k) for k in rng.permutation(len(population.planted))]
    accepted: list[int] = []
    tested: set[int] = set()
    empty, carried = 0, 0.0
    for turn in range(1, ROUNDS + 1):
        now, waiting = waiting[:A_ROUND], waiting[A_ROUND:]
        if not now or empty == ENOUGH_EMPTY_ROUNDS:
            break
        base = [length, *(first[k, rows] for k in accepted)]
        ids = {f"{k:02d}": k for k in now}

        def again(new: Sequence[str], ids: dict[str, int] = ids, before: tuple[int, ...] = tuple(accepted)) -> list[np.ndarray]:
            return [length, *(second[k, rows] for k in (*before, *(ids[i] for i in new)))]

        rule = Rule("agent", round_level(ALPHA, turn, carried), MIN_SHARE, PERMUTATIONS)
        exact = cell.kappa == 1 and cell.missing == 0
        found, ledger = decide(
            confirm, base, {i: first[k, rows] for i, k in ids.items()}, {i: i for i in ids}, rule, turn, rng, None if exact else again
        )
        accepted += [ids[i] for i in found]
        tested |= set(now)
        carried = passed_on(rule.alpha, ledger)
        empty = 0 if found else empty + 1
    return Outcome(frozenset(tested), tuple(accepted), first, sample.drawn_at > 0, confirm, rows)


# ---- nulls


def nulls(n_runs: int) -> tuple[list[list[str]], dict[str, float]]:
    """Runs in which anything was accepted although no candidate has anything to do with the change, for us and for the rivals."""
    worlds = {kind: world(cell, 21) for kind, cell in NULLS.items()}
    hits: dict[str, dict[str, list[bool]]] = {kind: {name: [] for name in ("ours", *RIVALS)} for kind in NULLS}
    kinds = list(NULLS)
    for number in range(n_runs):
        kind = kinds[number % len(kinds)]
        n_prompts, n_each = SIZES[number // len(kinds) % len(SIZES)]
        population = worlds[kind]
        sized = replace(population, cell=replace(population.cell, n_prompts=n_prompts, n_each=n_each))
        outcome = decided(sized, 22, number)
        hits[kind]["ours"].append(bool(outcome.accepted))
        level = np.where(outcome.level < 0, np.nan, outcome.level / (N_LEVELS - 1))
        for name, rule in RIVALS.items():
            accepted = rule(level, outcome.after, [p.direction for p in population.planted], np.random.default_rng([23, number]))
            hits[kind][name].append(bool(accepted))
    rows = [_null_row(kind, hits[kind]) for kind in kinds]
    together = {name: [hit for kind in kinds for hit in hits[kind][name]] for name in ("ours", *RIVALS)}
    return [*rows, _null_row("all nulls, decided directly", together)], {name: float(np.mean(h)) for name, h in together.items()}


def _null_row(kind: str, hits: dict[str, list[bool]]) -> list[str]:
    return ["null: runs with anything accepted", kind, str(len(hits["ours"])), *(_percent(float(np.mean(h))) for h in hits.values())]


def loop_nulls(n_runs: int) -> tuple[list[str], float]:
    """The same through the whole loop: texts, scripted judge, proposer, store and graph."""
    cells = [replace(cell, distractors=10 - cell.length_labels) for cell in NULLS.values()]
    worlds = [world(cell, 21) for cell in cells]
    hits: dict[str, list[bool]] = {name: [] for name in ("ours", *RIVALS)}
    for number in range(n_runs):
        one = problem(worlds[number % len(worlds)], number, 24)
        hits["ours"].append(any(c["accepted"] for c in solve(one, PERMUTATIONS)["candidates"]))
        for name, accepted in rival_accepts(one).items():
            hits[name].append(bool(accepted))
    return _null_row("all nulls, whole loop (20 x 20)", hits), float(np.mean(hits["ours"]))


# ---- paraphrases, length, recall


def _verdicts(population: World, outcome: Outcome) -> dict[str, object]:
    """An outcome in the words of the scorecard."""
    place = {k: j for j, k in enumerate(outcome.accepted)}
    return {
        "candidates": [
            {
                "id": f"m{k}",
                "kind": planted.kind,
                "of": None if planted.of is None else f"m{planted.of}",
                "tested": k in outcome.tested,
                "accepted": k in place,
                "place": place.get(k),
                "stands_in": False,
            }
            for k, planted in enumerate(population.planted)
        ]
    }


PARAPHRASED = Cell("paraphrases", distractors=1)
"""Five candidates, one round: a distractor never stands in for a parameter that is not offered yet."""
_BOTH = ("paraphrase", "distractor")
BESIDE: dict[str, tuple[Cell, tuple[str, ...], int]] = {
    **{
        f"judge kappa .7, {known}, correlation {c:g}": (
            replace(PARAPHRASED, kappa=0.7, likelihoods=known == "likelihoods", correlation=c),
            _BOTH,
            1,
        )
        for known, c in product(("likelihoods", "sides"), (0.0, 0.5))
    },
    **{
        f"exact judge, paraphrase kappa .7, {known}, correlation {c:g}": (
            replace(PARAPHRASED, likelihoods=known == "likelihoods", correlation=c),
            _BOTH,
            1,
        )
        for known, c in product(("likelihoods", "sides"), (0.0, 0.5))
    },
    "judge kappa .7, likelihoods, correlation 0.5, 40 x 50": (
        replace(PARAPHRASED, kappa=0.7, correlation=0.5, n_prompts=40, n_each=50),
        _BOTH,
        4,
    ),
    "judge kappa .7, 5% missing, likelihoods": (replace(PARAPHRASED, kappa=0.7, missing=0.05), _BOTH, 1),
}
"""Candidates beside true parameters: the cell, the kinds that should be refused, and how many times fewer runs (they are long)."""
_SEES_LENGTH = Cell("length", paraphrases=False, length_labels=3, distractors=1, length_effect=0.8)
LENGTHS: dict[str, tuple[Cell, tuple[str, ...], int]] = {
    "beside true parameters, likelihoods": (_SEES_LENGTH, ("length",), 1),
    "beside true parameters, sides": (replace(_SEES_LENGTH, likelihoods=False), ("length",), 1),
    "parameters go with length (r .5), likelihoods": (replace(_SEES_LENGTH, length_correlation=0.5), ("length",), 1),
    "parameters go with length (r .5), judge kappa .7": (replace(_SEES_LENGTH, length_correlation=0.5, kappa=0.7), ("length",), 1),
    "beside true parameters, likelihoods, 40 x 5": (replace(_SEES_LENGTH, n_prompts=40, n_each=5), ("length",), 1),
    "beside true parameters, likelihoods, 40 x 50": (replace(_SEES_LENGTH, n_prompts=40, n_each=50), ("length",), 4),
}


def beside(n_runs: int) -> tuple[list[list[str]], dict[str, tuple[float, float]]]:
    """Rows of false acceptances beside true parameters, and per kind the part accepted in all and in the worst row."""
    rows: dict[str, list[list[str]]] = {"paraphrase": [], "distractor": [], "length": []}
    counts: dict[str, list[tuple[int, float]]] = {kind: [] for kind in rows}
    for seed, (what, (cell, kinds, fewer)) in enumerate({**BESIDE, **LENGTHS}.items(), 31):
        population = world(cell, seed)
        outcomes = [_verdicts(population, decided(population, seed, number)) for number in range(max(1, n_runs // fewer))]
        for kind in kinds:
            hits = [hit for outcome in outcomes for hit in false_acceptances(outcome, cell.kappa)[kind]]
            if hits:
                counts[kind].append((len(hits), float(np.mean(hits))))
                rows[kind].append([f"{kind} accepted", what, str(len(hits)), _percent(float(np.mean(hits))), "", "", ""])
    rates = {kind: (sum(n * r for n, r in c) / sum(n for n, _ in c), max(r for _, r in c)) for kind, c in counts.items()}
    return [row for kind in rows.values() for row in kind], rates


def recall(n_runs: int, **options: object) -> list[tuple[float, bool]]:
    """(exact unique share as read, accepted) of planted parameters at 20 prompts x 20 a side over several sets of effects."""
    out = []
    for k, (effects, hidden) in enumerate(EFFECTS):
        cell = replace(Cell("recall", effects=effects, hidden=hidden, paraphrases=False), **options)  # type: ignore[arg-type]
        population = world(cell, 51 + k)
        exact, true = population.shares(), range(len(effects))
        unit = exact.total if cell.likelihoods else 1.0
        unique = [(exact.change(list(true)) - exact.change([j for j in true if j != i])) / unit for i in true]
        for number in range(n_runs):
            outcome = decided(population, 52, number)
            out += [(unique[i], i in outcome.accepted) for i in true]
    return out


def recall_rows(n_runs: int) -> tuple[list[list[str]], float]:
    """Rows by judge and size of the unique share, and recall from `LARGE` up for the first of them."""
    rows, first = [], float("nan")
    settings: dict[str, dict[str, object]] = {
        "likelihoods": {},
        "likelihoods, correlation .3": {"correlation": 0.3},
        "likelihoods, judge kappa .7 (share as read)": {"kappa": 0.7},
        "sides (D[O] itself)": {"likelihoods": False},
    }
    for what, options in settings.items():
        found = recall(n_runs, **options)
        for low, high in ((LARGE, 2.0), (0.02, 0.05), (0.05, 0.08), (0.08, 0.15), (0.15, 2.0)):
            part = [hit for share, hit in found if low <= share < high]
            if part:
                name = f"unique share {low:g} and more" if high > 1 else f"unique share {low:g} to {high:g}"
                rows.append(["recall", f"{what}: {name}", str(len(part)), _percent(float(np.mean(part))), "", "", ""])
        if np.isnan(first):
            first = float(np.mean([hit for share, hit in found if share >= LARGE]))
    return rows, first


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


COLUMNS = ("what", "where", "n", "ours", *RIVALS)


def run(quick: bool) -> Section:
    """All bars of the issue on decisions, each with what was found."""
    n_nulls, n_loop, n_more, n_recall = (48, 6, 8, 4) if quick else (1000, 200, 60, 20)
    null_rows, rates = nulls(n_nulls)
    loop_row, loop_rate = loop_nulls(n_loop)
    allowed = ALPHA + 2 * np.sqrt(ALPHA * (1 - ALPHA) / n_nulls)
    beside_rows, worst = beside(n_more)
    recalled, found = recall_rows(n_recall)
    loop_allowed = ALPHA + 2 * np.sqrt(ALPHA * (1 - ALPHA) / n_loop)
    met = rates["ours"] <= allowed and loop_rate <= loop_allowed and all(mean <= 0.05 for mean, _ in worst.values()) and found >= 0.9
    limit, direct, loop_limit, whole = (_percent(float(x)) for x in (allowed, rates["ours"], loop_allowed, loop_rate))
    wrong = "; ".join(f"{kind} {_percent(mean)}, {_percent(most)} in the worst row" for kind, (mean, most) in worst.items())
    verdict = "met" if met else "NOT met"
    bar = (
        f"Bars: anything accepted in at most {limit} of {n_nulls} nulls (found {direct}) and in at most {loop_limit} of {n_loop} "
        f"through the whole loop (found {whole}); paraphrases, length labels and other distractors accepted in at most 5% "
        f"(found: {wrong}); recall from unique share {LARGE:g} at 20 x 20 with likelihoods at least 90% "
        f"(found {_percent(found)}): {verdict}."
    )
    return Section(
        title="Decisions: nulls, paraphrases, length, recall",
        command="python -m tests.benchmarks --only decisions",
        columns=COLUMNS,
        rows=[*null_rows, loop_row, *beside_rows, *recalled],
        bar=bar,
        notes=[
            "“Decided directly”: split, rounds, levels and tests as in the loop, on drawn labels; “whole loop”: such "
            "problems as texts, read by a scripted judge, through agent.graph.run_loop.",
            f"Nulls: sizes {', '.join(f'{p} x {n}' for p, n in SIZES)} in turn; 10 candidates each, none with anything "
            "to do with the change.",
            "Rivals see the same readings of all responses: direction matches by .01; one minus selection frequency of a lasso below .05; "
            "percentile bootstrap excludes zero, uncorrected.",
        ],
    )
