"""What six anchor checkpoints say about a whole run, against many independent responses: five organisms, fifty redraws each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from probes.dissimilarity import total_change
from probes.explained_share import explained
from probes.trajectory import course, step_weights
from tests.benchmarks.anchor_pools import Block
from tests.benchmarks.anchor_worlds import (
    AROUND,
    LABELS,
    N_ANCHORS,
    PER_ANCHOR,
    POOL,
    RATES,
    RATES_EVERY,
    REFERENCE,
    WINDOW,
    World,
    world,
)
from tests.benchmarks.organisms import SEEDS
from tests.benchmarks.section import Section

RATED = ("harmful", "coherent", "on topic", "list", "closing")
"""Labels whose rate (of level 1) is followed along the run."""
PARTS = 16
"""Parts of the reference, by whose spread its own error is told."""


@dataclass(frozen=True)
class Redraws:
    """Errors and coverages over the redraws of one world.

    Attributes:
        share: `(n_labels,)` of the reference.
        share_error_of_truth, d_error_of_truth: Standard errors of its shares `(n_labels,)` and, as a part of it, of its D.
        share_error, share_covered: `(n_redraws, n_labels)`.
        within_pool: `(n_labels,)` mean share of the redraws minus that of the whole pool.
        d: `(n_redraws,)` D over the reference's D, minus 1.
        d_covered: `(n_redraws,)` whether its interval covers the reference.
        peak_off: `(n_redraws,)` checkpoints between its highest split and the reference's.
        rate_rmse: `(n_rated, n_checkpoints)` RMSE of rates along the run, where they are known.
        rate_rmse_every: The same for averages, checkpoint by checkpoint, of all that `every` draws.
        rate_covered: `(n_redraws, n_rated, n_checkpoints)` 1 where the interval along the run covers, NaN where the rate is said to be
            unknown.
    """

    share: np.ndarray
    share_error_of_truth: np.ndarray
    d_error_of_truth: float
    share_error: np.ndarray
    share_covered: np.ndarray
    within_pool: np.ndarray
    d: np.ndarray
    d_covered: np.ndarray
    peak_off: np.ndarray
    rate_rmse: np.ndarray
    rate_rmse_every: np.ndarray
    rate_covered: np.ndarray

    @property
    def bias_error(self) -> np.ndarray:
        """`(n_labels,)` standard error of the mean of `share_error`: that of the pool and that of the reference."""
        independent = sum(POOL) // PER_ANCHOR
        return np.asarray(np.sqrt(self.share_error.var(axis=0, ddof=1) / independent + self.share_error_of_truth**2))


def draws(cell: np.ndarray, n: int, rng: np.random.Generator, per_cell: int = PER_ANCHOR) -> Iterator[np.ndarray]:
    """Rows of `n` redraws of so many responses from each cell `(n_pool,)`: the pool is dealt out, then dealt out anew."""
    members = [np.flatnonzero(cell == each) for each in np.unique(cell)]
    hands = min(map(len, members)) // per_cell
    for k in range(n):
        if k % hands == 0:
            dealt = [rng.permutation(each) for each in members]
        yield np.concatenate([each[k % hands * per_cell :][:per_cell] for each in dealt])


def redraw(of: World, n_redraws: int) -> Redraws:
    """Draw 3 responses per prompt and anchor from the pool again and again, and compare with the reference."""
    rng = np.random.default_rng([91, of.seed])
    everything = np.arange(of.reference.prompt.size)
    d_true, share = shares(of, of.reference, of.reference_labels, everything)
    part = np.empty(everything.size, dtype=np.int64)
    cell = cells(of.reference)
    for each in np.unique(cell):
        rows = np.flatnonzero(cell == each)
        part[rows] = rng.permutation(np.arange(rows.size) % PARTS)
    of_parts = [shares(of, of.reference, of.reference_labels, np.flatnonzero(part == k)) for k in range(PARTS)]
    highest = _highest(of, of.near, np.arange(of.near.prompt.size))
    found = []
    for rows in draws(cells(of.pool), n_redraws, rng):
        contrast = of.contrast(of.pool, rows)
        d = total_change(contrast)
        parts = [explained(contrast, [label[rows]]).share_interval for label in of.pool_labels]
        found.append(
            (
                [p.estimate - s for p, s in zip(parts, share, strict=True)],
                [p.low <= s <= p.high for p, s in zip(parts, share, strict=True)],
                d.estimate / d_true - 1,
                d.low <= d_true <= d.high,
                abs(_highest(of, of.pool, rows) - highest),
                *_rates(of, rows),
            )
        )
    share_error, share_covered, d_off, d_covered, peak_off, rate_error, rate_covered = (np.array(x) for x in zip(*found, strict=True))
    own, every = _rate_noise(of)
    _, of_pool = shares(of, of.pool, of.pool_labels, np.arange(of.pool.prompt.size))
    return Redraws(
        share,
        np.std([s for _, s in of_parts], axis=0, ddof=1) / np.sqrt(PARTS),
        float(np.std([d for d, _ in of_parts], ddof=1) / np.sqrt(PARTS) / d_true),
        share_error,
        share_covered,
        share_error.mean(axis=0) + share - of_pool,
        d_off,
        d_covered,
        peak_off,
        np.sqrt(np.maximum(np.nanmean(rate_error**2, axis=0) - own, 0)),
        np.sqrt(every),
        rate_covered,
    )


def cells(drawn: Block) -> np.ndarray:
    """Number of the prompt and checkpoint of each response."""
    return np.asarray(drawn.drawn_at * (int(drawn.prompt.max()) + 1) + drawn.prompt)


def shares(of: World, drawn: Block, labels: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """D, and the share of each label `(n_labels,)`."""
    contrast = of.contrast(drawn, rows)
    parts = [explained(contrast, [label[rows]]) for label in labels]
    return total_change(contrast).estimate, np.array([p.change / p.total for p in parts])


def _highest(of: World, drawn: Block, rows: np.ndarray) -> int:
    """Where D is highest among the splits around the one that is analysed, in checkpoints from it."""
    shifts = range(-AROUND, AROUND + 1)
    return int(np.argmax([total_change(of.contrast(drawn, rows, shift)).estimate for shift in shifts])) - AROUND


def _rated() -> list[int]:
    return [list(LABELS).index(name) for name in RATED]


def _rates(of: World, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error of the rate of each rated label at each rated checkpoint `(n_rated, n_checkpoints)`, and whether its interval covers."""
    needed = np.flatnonzero(np.isfinite(of.pool.scores).all(axis=0))
    weights = step_weights(of.pool.scores[rows][:, needed], np.searchsorted(needed, of.pool.drawn_at[rows]), of.pool.prompt[rows])
    at = np.searchsorted(needed, list(of.rates))
    errors, covered = [], []
    for k in _rated():
        level = of.pool_labels[k, rows]
        found = course(weights, (level == 1).astype(float), needed)
        truth = np.array([_by_prompt(drawn, labels[k]).mean() for drawn, labels in of.rates.values()])
        errors.append(found.estimate[at] - truth)
        inside = (found.low[at] <= truth) & (truth <= found.high[at])
        covered.append(np.where(np.isfinite(found.estimate[at]), inside, np.nan))
    return np.array(errors), np.array(covered)


def _by_prompt(drawn: Block, label: np.ndarray) -> np.ndarray:
    """Whether each response has level 1, `(n_prompts, n_each)`."""
    order = np.argsort(drawn.prompt, kind="stable")
    return np.asarray((label[order] == 1).astype(float).reshape(int(drawn.prompt.max()) + 1, -1))


def _rate_noise(of: World) -> tuple[np.ndarray, np.ndarray]:
    """Squared error `(n_rated, n_checkpoints)` of the reference's rates, and of averages of the 3 responses that `every` draws."""
    own, every = [], []
    for k in _rated():
        spread = [_by_prompt(drawn, labels[k]).var(axis=1, ddof=1) for drawn, labels in of.rates.values()]
        own.append([float(s.sum()) / s.size**2 / RATES for s in spread])
        every.append([float(s.sum()) / s.size**2 / PER_ANCHOR for s in spread])
    return np.array(own), np.array(every)


COLUMNS = (
    *("organism", "anchors (steps)", "auto stops at", "label", "share", "bias", "RMSE", "coverage of 95%"),
    *("rate along the run: RMSE", "of per-step averages of all that every draws", "coverage of 95%", "unknown"),
)


def _row(of: World, steps: Sequence[int], found: Redraws, name: str) -> list[str]:
    k = list(LABELS).index(name)
    error = found.share_error[:, k]
    cells = [
        f"{found.share[k]:.3f}",
        f"{error.mean():+.4f} ± {found.bias_error[k]:.4f}",
        f"{rmse_of(error):.4f}",
        f"{100 * found.share_covered[:, k].mean():.0f}%",
    ]
    rated = [""] * 4
    if name in RATED:
        at = RATED.index(name)
        covered = found.rate_covered[:, at]  # over redraws and checkpoints
        rated = [
            f"{rmse_of(found.rate_rmse[at]):.4f}",
            f"{rmse_of(found.rate_rmse_every[at]):.4f}",
            f"{100 * np.nanmean(covered):.0f}%",
            f"{100 * np.isnan(covered).mean():.0f}%",
        ]
    anchors = ", ".join(str(steps[c]) for c in sorted(of.anchors))
    return [str(of.seed), anchors, str(of.stops_at), name, *cells, *rated]


def rmse_of(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def run(quick: bool) -> Section:
    """All organisms (in `quick` the first), fifty redraws each (in `quick` five)."""
    n_redraws = 5 if quick else 50
    worlds = [world(seed) for seed in (SEEDS[:1] if quick else SEEDS)]
    found = [redraw(each, n_redraws) for each in worlds]
    steps = range(0, 121, 2)
    rows = [_row(of, steps, each, name) for of, each in zip(worlds, found, strict=True) for name in LABELS]
    return Section(
        title="Six anchors against every checkpoint",
        command="python -m tests.benchmarks --only anchors",
        columns=COLUMNS,
        rows=rows,
        bar=_bar(worlds, found),
        notes=_notes(n_redraws, found),
    )


def _bar(worlds: Sequence[World], found: Sequence[Redraws]) -> str:
    errors = np.stack([each.share_error for each in found])  # organism, redraw, label
    own = errors.mean(axis=1)
    bias, error = own.mean(axis=0), np.sqrt(np.sum([each.bias_error**2 for each in found], axis=0)) / len(found)
    worst = int(np.argmax(np.abs(bias)))
    within = np.abs(np.mean([each.within_pool for each in found], axis=0)).max()
    rmse, together = np.sqrt((errors**2).mean(axis=1)).max(), np.sqrt((errors**2).mean(axis=(0, 1))).max()
    d = np.array([each.d for each in found])
    near = np.mean([np.mean(each.peak_off <= 1) for each in found])
    rate, every = (np.sqrt(np.mean([getattr(f, name) ** 2 for f in found], axis=(0, 2))) for name in ("rate_rmse", "rate_rmse_every"))
    covered = [
        100 * float(np.mean([np.nanmean(getattr(f, name)) for f in found])) for name in ("share_covered", "rate_covered", "d_covered")
    ]
    unknown = 100 * float(np.mean([np.isnan(f.rate_covered).mean() for f in found]))
    stops = [of.stops_at for of in worlds]
    checks = (
        (
            abs(bias[worst]) <= 0.01,
            f"|bias| of every label's share at most .01 (largest mean of the organisms: {list(LABELS)[worst]}, {bias[worst]:+.4f} ± "
            f"{error[worst]:.4f}; of one organism {np.abs(own).max():.4f}; largest mean against the whole pool, without its and the "
            f"reference's error, {within:.4f})",
        ),
        (rmse <= 0.04, f"RMSE at most .04 (largest of an organism {rmse:.4f}, of all together {together:.4f})"),
        (
            rmse_of(d) <= 0.06,
            f"D at its peak within 6% (RMSE {100 * rmse_of(d):.1f}%, bias {100 * d.mean():+.1f}%, "
            f"{100 * np.mean(np.abs(d) <= 0.06):.0f}% of redraws)",
        ),
        (near >= 0.9, f"peak within one checkpoint in 90% ({100 * near:.1f}%)"),
        (bool((rate < every).all()), f"rates along the run nearer than all of every's responses ({rate.mean():.4f}, {every.mean():.4f})"),
        (
            min(covered) >= 90,
            "intervals cover 90% (shares {:.1f}%, rates {:.1f}%, D {:.1f}%)".format(*covered)
            + f"; rates are said to be unknown at {unknown:.1f}% of the checkpoints",
        ),
        (min(stops) >= 4 and max(stops) <= 10, f"auto stops at 4-10 anchors ({', '.join(map(str, stops))})"),
    )
    return "Bars: " + "; ".join(f"{text}: {'met' if ok else 'NOT met'}" for ok, text in checks) + "."


def _notes(n_redraws: int, found: Sequence[Redraws]) -> list[str]:
    of_share = max(each.share_error_of_truth.max() for each in found)
    of_d = max(each.d_error_of_truth for each in found)
    return [
        f"{n_redraws} redraws of {PER_ANCHOR} responses per prompt (24) and anchor, dealt out from {sum(POOL)}; the anchors are those "
        f"automatic sampling chooses up to {N_ANCHORS}. Reference, independent of the pool: {sum(REFERENCE)} responses per prompt at each "
        f"of the {2 * WINDOW} checkpoints of the windows ({2 * WINDOW * sum(REFERENCE)} per prompt), of equal weight; standard error of "
        f"its shares at most {of_share:.4f}, of its D {100 * of_d:.1f}%. ±: one standard error of a bias, of pool and reference.",
        f"Rates: {RATES} independent responses per prompt at every {RATES_EVERY}th checkpoint; their own error is subtracted. Where six "
        f"anchors do not stand for a checkpoint its rate is said to be unknown, without an interval. The peak is searched among "
        f"{2 * AROUND + 1} splits around that of what automatic sampling drew, and compared with that of {REFERENCE[0]} reference "
        f"responses per prompt and checkpoint.",
    ]
