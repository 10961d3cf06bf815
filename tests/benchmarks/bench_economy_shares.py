"""How many judge calls does a share within .05 take, with our estimator and from histograms of labels? (issue 5: 4 times fewer)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from probes.explained_share import explained
from probes.reliability import noise_free_share
from probes.synthetic import PlantedRun, contrast_of, draw, exact_change, exact_shares, planted_run, reading_matrix
from tests.benchmarks.section import Section

RMSE = 0.05
LEAST_FACTOR, LARGEST_D = 4.0, 0.25
N_PROMPTS, N_LEVELS = 20, 5
PLANS = ((0.25, 0.3), (0.4, 0.45), (0.6, 0.7), (0.75, 0.8), (1.2, 1.2))
"""Effect of the parameter and spread of what no label sees, from a small change to a large one."""
KAPPAS = (1.0, 0.8, 0.6)
EACH = (1, 2, 3, 4, 6, 9, 14, 20, 30, 50, 80, 130, 200, 320)
"""Responses a side and prompt that are tried for our estimator."""
HISTOGRAM_EACH = (*EACH, 520, 830, 1300, 2100, 3300, 5300)


@dataclass(frozen=True)
class Planted:
    """A planted run, how its label is read, and every exact value that an estimate is held against.

    Attributes:
        read: Share of the label as it is read; `true`: of the label itself.
        pooled, by_prompt: What a histogram of all prompts together, or one a prompt, converges to.
        seen: `(2, n_prompts, n_levels)` exact distribution of the readings on the two sides.
    """

    run: PlantedRun
    kappa: float
    change: float
    read: float
    true: float
    pooled: float
    by_prompt: float
    seen: np.ndarray


def planted(effect: float, hidden: float, kappa: float) -> Planted:
    """One run and its exact values."""
    run = planted_run(np.random.default_rng(81), n_prompts=N_PROMPTS, effects=[effect], hidden=hidden, n_levels=N_LEVELS)
    change = exact_change(run, [0], [1])
    matrix = reading_matrix(N_LEVELS, kappa)[:, :N_LEVELS]
    read = exact_shares(run, [0], [1], run.labels, [reading_matrix(N_LEVELS, kappa)]).change([0]) / change
    dummies = np.eye(N_LEVELS)[run.labels[0]] @ matrix
    seen = np.stack([np.einsum("po,pok->pk", table, dummies) for table in (run.before, run.after)])
    true = exact_change(run, [0], [1], run.labels) / change
    return Planted(run, kappa, change, read, true, float(_shown(seen.mean(axis=1))) / change, float(np.mean(_shown(seen))) / change, seen)


def _shown(seen: np.ndarray) -> np.ndarray:
    """Plug-in D[O] of two histograms `(2, ..., n_levels)`."""
    before, after = seen
    total = before + after
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sum(np.where(total > 0, (before - after) ** 2 / (2 * total), 0.0), axis=-1))


def ours(of: Planted, n_each: int, rng: np.random.Generator) -> tuple[float, float]:
    """Share from one judged set, and the share without reading error from two readings of it."""
    sample = draw(of.run, [0, 1], n_each, rng)
    contrast = contrast_of(sample, [0], [1], likelihoods=True)
    true = sample.labels_of(of.run)[0][contrast.index]
    first, second = (np.where(rng.random(true.size) < of.kappa, true, rng.integers(0, N_LEVELS, true.size)) for _ in range(2))
    part = explained(contrast, [first])
    return part.change / part.total, noise_free_share(contrast, first, second).estimate


def histograms(of: Planted, n_each: int, rng: np.random.Generator) -> tuple[float, float]:
    """Shares from histograms of the labels, pooled over prompts and one a prompt; the exact D is given to them."""
    seen = rng.multinomial(n_each, of.seen) / n_each
    return float(_shown(seen.mean(axis=1))) / of.change, float(np.mean(_shown(seen))) / of.change


def calls_needed(each: Sequence[int], errors: Sequence[float], calls_per_response: int = 1) -> float:
    """Judge calls at which the RMSE falls to the bar and stays there, between two sizes on the log-log line; infinite: never."""
    within = [k for k in range(len(each)) if max(errors[k:]) <= RMSE]
    if not within:
        return np.inf
    k = within[0]
    size = float(each[k])
    if k > 0:
        part = (np.log(errors[k - 1]) - np.log(RMSE)) / (np.log(errors[k - 1]) - np.log(errors[k]))
        size = float(np.exp(np.log(each[k - 1]) + part * (np.log(each[k]) - np.log(each[k - 1]))))
    return 2 * N_PROMPTS * size * calls_per_response


Estimator = Callable[[Planted, int, np.random.Generator], tuple[float, float]]


def errors_of(of: Planted, estimate: Estimator, truth: tuple[float, float], each: Sequence[int], n: int) -> tuple[list[float], list[float]]:
    """RMSE of both numbers of an estimate at every size; an undefined estimate counts as one that never gets there."""
    out: tuple[list[float], list[float]] = ([], [])
    for n_each in each:
        found = np.array([estimate(of, n_each, np.random.default_rng([82, n_each, r])) for r in range(n)])
        for k in range(2):
            error = float(np.sqrt(np.mean((found[:, k] - truth[k]) ** 2)))
            out[k].append(error if np.isfinite(error) else np.inf)
        if max(out[0][-1], out[1][-1]) < RMSE / 2:
            return out
    return out


def _count(calls: float) -> str:
    return "never" if np.isinf(calls) else f"{calls:,.0f}"


def run(quick: bool) -> Section:
    """Every size of change and every judge."""
    n = 30 if quick else 300
    rows, misses, smallest = [], [], np.inf
    for effect, hidden in PLANS:
        for kappa in KAPPAS:
            of = planted(effect, hidden, kappa)
            single, corrected = errors_of(of, ours, (of.read, of.true), EACH, n)
            pooled, by_prompt = errors_of(of, histograms, (of.pooled, of.by_prompt), HISTOGRAM_EACH, n)
            mine = calls_needed(EACH[: len(single)], single)
            twice = calls_needed(EACH[: len(corrected)], corrected, 2) if kappa < 1 else mine
            theirs = min(calls_needed(HISTOGRAM_EACH[: len(e)], e) for e in (pooled, by_prompt))
            off = min(abs(of.pooled - of.true), abs(of.by_prompt - of.true))
            factor = theirs / mine
            rows.append(
                [
                    f"{of.change:.2f}",
                    f"{kappa:g}",
                    f"{of.read:.2f}",
                    _count(mine),
                    _count(theirs),
                    f"{factor:.1f}",
                    f"{of.true:.2f}",
                    _count(twice),
                    _count(theirs) if off < RMSE / 5 else f"never (off by {off:.2f})",
                ]
            )
            if kappa == 1 and of.change <= LARGEST_D:
                smallest = min(smallest, factor)
                if factor < LEAST_FACTOR:
                    misses.append(f"D {of.change:.2f}: {factor:.1f} times")
    met = f"met (least {smallest:.1f} times)" if not misses else f"NOT met ({'; '.join(misses)})"
    return Section(
        title="Judge calls for a share within .05",
        command="python -m tests.benchmarks --only economy_shares",
        columns=(
            *("D", "kappa", "share as read", "calls, ours", "calls, histograms", "times fewer"),
            *("true share", "calls for it, ours (two readings)", "calls for it, histograms"),
        ),
        rows=rows,
        bar=f"Bar: with a judge that does not err and D up to {LARGEST_D:g}, at least {LEAST_FACTOR:g} times fewer calls than "
        f"histograms: {met}.",
        notes=[
            f"Calls at which the RMSE over {n} redraws of one planted run ({N_PROMPTS} prompts, one parameter of {N_LEVELS} levels) is "
            f"{RMSE:g}, between the sizes tried. Kappa: a reading is right with this probability, else any level. Histograms: plug-in "
            "D[O] of the labels on both sides, all prompts together or one a prompt, whichever needs fewer, each held against what it "
            "converges to and given the exact D; ours estimates D as well. The true share with a judge that errs: ours from two readings "
            "of every response (`probes.reliability.noise_free_share`, calls counted twice); histograms converge to the share as read and "
            "never get there."
        ],
    )
