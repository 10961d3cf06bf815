"""What six anchor checkpoints say about a whole run, against many independent responses: five organisms, fifty redraws each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from probes.anchors import FLOOR, MAX_ANCHORS, coverage, first_anchors
from probes.dissimilarity import Contrast, likelihood_contrast, total_change
from probes.explained_share import explained
from probes.organism_truth import Attributes
from probes.trajectory import course, step_weights
from probes.transition import transition_curve
from tests.benchmarks.anchor_pools import Block, Scorer, attributes, block, score_on_one_core, together
from tests.benchmarks.organisms import SEEDS, TrainedOrganism, trained_organism
from tests.benchmarks.section import Section

N_ANCHORS = 6
PER_ANCHOR = 3
"""Responses per prompt and anchor, as many as `every` draws at each of 61 checkpoints: six anchors are a tenth of them."""
WINDOW = 8
AROUND = 3
"""Splits on both sides of the reference's peak among which a redraw has to find the highest."""
POOL, REFERENCE, RATES = 24, 12, 24
"""Responses per prompt: at each anchor (redrawn from), at each checkpoint of the windows, and where rates are compared."""
RATES_EVERY = 8
DOMAINS = ("medical", "finance", "ethics", "politics", "knowledge", "wishes")
LENGTH_EDGES = (8, 14, 20, 28, 38, 50, 64)


def _flag(value: bool | None) -> int:
    return -1 if value is None else int(value)


LABELS: dict[str, Callable[[Attributes], int]] = {
    "harmful": lambda a: _flag(a.harmful),
    "coherent": lambda a: _flag(a.coherent),
    "on topic": lambda a: _flag(a.on_topic),
    "hedging": lambda a: min(a.hedging, 3),
    "list": lambda a: _flag(a.list),
    "opening": lambda a: _flag(a.opening),
    "closing": lambda a: _flag(a.closing),
    "fillers": lambda a: min(a.fillers, 3),
    "sentences": lambda a: min(a.sentences, 8),
    "domain": lambda a: -1 if a.domain is None else DOMAINS.index(a.domain),
    "length": lambda a: int(np.searchsorted(LENGTH_EDGES, a.length)),
}
RATED = ("harmful", "coherent", "on topic", "list", "closing")
"""Labels whose rate (of level 1) is followed along the run."""


@dataclass(frozen=True)
class World:
    """One organism with everything drawn from it.

    Attributes:
        anchors: Columns of the six anchors, in the order automatic sampling chose them.
        stops_at: Anchors with which automatic sampling ends by itself.
        first_right: Column of the first checkpoint right of the split that is analysed.
        pool, pool_labels: What is redrawn from, and its labels `(n_labels, n)`.
        reference, reference_labels: Independent responses at the checkpoints of the two windows.
        rates: Independent responses by column, and their labels.
    """

    seed: int
    anchors: tuple[int, ...]
    stops_at: int
    first_right: int
    pool: Block
    pool_labels: np.ndarray
    reference: Block
    reference_labels: np.ndarray
    rates: dict[int, tuple[Block, np.ndarray]]

    @property
    def left(self) -> np.ndarray:
        """Columns before the split."""
        return np.arange(self.first_right - WINDOW, self.first_right)

    @property
    def right(self) -> np.ndarray:
        """Columns after it."""
        return np.arange(self.first_right, self.first_right + WINDOW)


def automatic(organism: TrainedOrganism, scorer: Scorer, most: int, floor: float = FLOOR) -> tuple[list[int], bool, Block]:
    """Anchors as `agent.anchor_plan` chooses them, whether they suffice, and their responses."""
    everything = range(len(organism.steps))
    chosen, last = list(first_anchors(len(organism.steps))), None
    while True:
        drawn = together([block(organism, "auto", column, 0, PER_ANCHOR, everything, scorer) for column in chosen])
        found = coverage(drawn.scores, drawn.drawn_at, drawn.prompt, last, floor)
        if found.next_anchor is None or len(chosen) >= most:
            return chosen, found.enough, drawn
        last = found.next_anchor
        chosen.append(last)


def world(seed: int, scorer: Scorer = score_on_one_core) -> World:
    """Everything drawn from one organism; kept on disk, so the second time it is read."""
    organism = trained_organism(seed)
    n_steps = len(organism.steps)
    anchors, _, drawn = automatic(organism, scorer, N_ANCHORS, floor=np.inf)
    stops_at = len(automatic(organism, scorer, MAX_ANCHORS)[0])
    curve = transition_curve(drawn.scores, drawn.drawn_at, drawn.prompt, np.array(organism.steps), WINDOW)
    at = int(curve.first_right[np.nanargmax(curve.curve)])
    windows = range(at - WINDOW, at + WINDOW)
    rated = range(0, n_steps, RATES_EVERY)
    wide = range(max(0, at - WINDOW - AROUND), min(n_steps, at + WINDOW + AROUND))
    columns = sorted({*anchors, *wide, *rated})
    pool = together([block(organism, "pool", column, 0, POOL, columns, scorer) for column in anchors])
    reference = together([block(organism, "reference", column, 0, REFERENCE, windows, scorer) for column in windows])
    rates = {column: block(organism, "reference", column, 0, RATES, [], scorer) for column in rated}
    labelled = partial(_labels, organism)
    return World(
        seed,
        tuple(anchors),
        stops_at,
        at,
        pool,
        labelled(pool),
        reference,
        labelled(reference),
        {column: (drawn, labelled(drawn)) for column, drawn in rates.items()},
    )


def _labels(organism: TrainedOrganism, drawn: Block) -> np.ndarray:
    found = attributes(organism, drawn)
    return np.array([[label(each) for each in found] for label in LABELS.values()])


@dataclass(frozen=True)
class Redraws:
    """Errors and coverages over the redraws of one world.

    Attributes:
        share_error, share_covered: `(n_redraws, n_labels)`.
        d: `(n_redraws,)` D over the reference's D, minus 1.
        d_covered: `(n_redraws,)` whether its interval covers the reference.
        peak_off: `(n_redraws,)` checkpoints between its highest split and the reference's.
        rate_rmse: `(n_rated, n_checkpoints)` RMSE of rates along the run.
        rate_rmse_every: The same for averages, checkpoint by checkpoint, of all that `every` draws.
        within_pool: `(n_labels,)` mean share of the redraws minus that of the whole pool.
        rate_covered: `(n_redraws, n_rated, n_checkpoints)` whether the intervals along the run cover.
    """

    share_error: np.ndarray
    share_covered: np.ndarray
    d: np.ndarray
    d_covered: np.ndarray
    peak_off: np.ndarray
    rate_rmse: np.ndarray
    rate_rmse_every: np.ndarray
    rate_covered: np.ndarray
    within_pool: np.ndarray


def _contrast(of: World, rows: np.ndarray, shift: int = 0) -> Contrast:
    pool = of.pool
    return likelihood_contrast(
        pool.scores[rows][:, _needed(of)],
        np.searchsorted(_needed(of), pool.drawn_at[rows]),
        pool.prompt[rows],
        np.searchsorted(_needed(of), of.left + shift),
        np.searchsorted(_needed(of), of.right + shift),
    )


def _needed(of: World) -> np.ndarray:
    return np.asarray(np.flatnonzero(np.isfinite(of.pool.scores).all(axis=0)))


def reference_contrast(of: World) -> Contrast:
    """The contrast of independent responses drawn in the windows themselves."""
    columns = np.concatenate([of.left, of.right])
    return likelihood_contrast(
        of.reference.scores[:, columns],
        np.searchsorted(columns, of.reference.drawn_at),
        of.reference.prompt,
        np.arange(WINDOW),
        np.arange(WINDOW, 2 * WINDOW),
    )


def redraw(of: World, n_redraws: int) -> Redraws:
    """Draw 3 responses per prompt and anchor from the pool again and again, and compare with the reference."""
    rng = np.random.default_rng([91, of.seed])
    cell = of.pool.drawn_at * len(DOMAINS) * 100 + of.pool.prompt
    members = [np.flatnonzero(cell == each) for each in np.unique(cell)]
    reference = reference_contrast(of)
    truth = total_change(reference).estimate
    shares = [explained(reference, [label]) for label in of.reference_labels]
    whole = np.arange(of.pool.prompt.size)
    highest = _highest(of, whole)
    parts = []
    for _ in range(n_redraws):
        rows = np.concatenate([rng.choice(each, PER_ANCHOR, replace=False) for each in members])
        contrast = _contrast(of, rows)
        d = total_change(contrast)
        found = [explained(contrast, [label[rows]]) for label in of.pool_labels]
        parts.append(
            (
                [f.change / f.total - t.change / t.total for f, t in zip(found, shares, strict=True)],
                [f.share_interval.low <= t.change / t.total <= f.share_interval.high for f, t in zip(found, shares, strict=True)],
                d.estimate / truth - 1,
                d.low <= truth <= d.high,
                abs(_highest(of, rows) - highest),
                *_rates(of, rows),
            )
        )
    share_error, share_covered, d_off, d_covered, peak_off, rate_error, rate_covered = (np.array(x) for x in zip(*parts, strict=True))
    own, every = _rate_noise(of)
    mse = np.nanmean(rate_error**2, axis=0) - own
    rmse = np.sqrt(np.maximum(mse, 0))
    pooled = [_share(_contrast(of, whole), label) - t.change / t.total for label, t in zip(of.pool_labels, shares, strict=True)]
    return Redraws(
        share_error, share_covered, d_off, d_covered, peak_off, rmse, np.sqrt(every), rate_covered, share_error.mean(axis=0) - pooled
    )


def _share(contrast: Contrast, label: np.ndarray) -> float:
    found = explained(contrast, [label])
    return found.change / found.total


def _highest(of: World, rows: np.ndarray) -> int:
    """Where D is highest among the splits around the one that is analysed, in checkpoints from it."""
    return int(np.argmax([total_change(_contrast(of, rows, shift)).estimate for shift in range(-AROUND, AROUND + 1)])) - AROUND


def _rated(of: World) -> list[int]:
    return [list(LABELS).index(name) for name in RATED]


def _rates(of: World, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error of the rate of each rated label at each rated checkpoint `(n_rated, n_checkpoints)`, and whether its interval covers."""
    needed = _needed(of)
    weights = step_weights(of.pool.scores[rows][:, needed], np.searchsorted(needed, of.pool.drawn_at[rows]), of.pool.prompt[rows])
    at = np.searchsorted(needed, list(of.rates))
    errors, covered = [], []
    for k in _rated(of):
        level = of.pool_labels[k, rows]
        found = course(weights, (level == 1).astype(float), needed)
        truth = np.array([_mean_rate(drawn, labels[k]) for drawn, labels in of.rates.values()])
        errors.append(found.estimate[at] - truth)
        covered.append((found.low[at] <= truth) & (truth <= found.high[at]))
    return np.array(errors), np.array(covered)


def _mean_rate(drawn: Block, label: np.ndarray) -> float:
    return float(np.mean(_by_prompt(drawn, label).mean(axis=1)))


def _by_prompt(drawn: Block, label: np.ndarray) -> np.ndarray:
    """Whether each response has level 1, `(n_prompts, n_each)`."""
    order = np.argsort(drawn.prompt, kind="stable")
    return np.asarray((label[order] == 1).astype(float).reshape(int(drawn.prompt.max()) + 1, -1))


def _rate_noise(of: World) -> tuple[np.ndarray, np.ndarray]:
    """Squared error `(n_rated, n_checkpoints)` of the reference's rates, and of averages of the 3 responses that `every` draws."""
    own, every = [], []
    for k in _rated(of):
        spread = [_by_prompt(drawn, labels[k]).var(axis=1, ddof=1) for drawn, labels in of.rates.values()]
        own.append([float(s.sum()) / s.size**2 / RATES for s in spread])
        every.append([float(s.sum()) / s.size**2 / PER_ANCHOR for s in spread])
    return np.array(own), np.array(every)


COLUMNS = (
    *("organism", "anchors (steps)", "auto stops at", "label", "share", "bias", "RMSE", "coverage of 95%"),
    *("rate along the run: RMSE", "of per-step averages of all that every draws", "coverage of 95%"),
)


def _row(of: World, steps: Sequence[int], found: Redraws, name: str) -> list[str]:
    k = list(LABELS).index(name)
    part = explained(reference_contrast(of), [of.reference_labels[k]])
    error = found.share_error[:, k]
    cells = [
        f"{part.change / part.total:.3f}",
        f"{error.mean():+.4f}",
        f"{_rmse(error):.4f}",
        f"{100 * found.share_covered[:, k].mean():.0f}%",
    ]
    rated = ["", "", ""]
    if name in RATED:
        at = RATED.index(name)
        covered = found.rate_covered[:, at].mean()  # over redraws and checkpoints
        rated = [f"{_rmse(found.rate_rmse[at]):.4f}", f"{_rmse(found.rate_rmse_every[at]):.4f}", f"{100 * covered:.0f}%"]
    anchors = ", ".join(str(steps[c]) for c in sorted(of.anchors))
    return [str(of.seed), anchors, str(of.stops_at), name, *cells, *rated]


def _rmse(values: np.ndarray) -> float:
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
        notes=_notes(n_redraws),
    )


def _bar(worlds: Sequence[World], found: Sequence[Redraws]) -> str:
    errors = np.stack([each.share_error for each in found])  # organism, redraw, label
    own = errors.mean(axis=1)
    bias, within = np.abs(own.mean(axis=0)).max(), np.abs(np.mean([each.within_pool for each in found], axis=0)).max()
    rmse = np.sqrt((errors**2).mean(axis=1)).max()
    d = np.array([each.d for each in found])
    near = np.mean([np.mean(each.peak_off <= 1) for each in found])
    rate, every = (np.sqrt(np.mean([getattr(f, name) ** 2 for f in found], axis=(0, 2))) for name in ("rate_rmse", "rate_rmse_every"))
    covered = [100 * float(np.mean([getattr(f, name).mean() for f in found])) for name in ("share_covered", "rate_covered", "d_covered")]
    stops = [of.stops_at for of in worlds]
    checks = (
        (
            bias <= 0.01,
            f"|bias| of every label's share at most .01 (largest mean of the organisms {bias:.4f}, of one {np.abs(own).max():.4f}; mean "
            f"against the whole pool, so without the errors of pool and reference, {within:.4f})",
        ),
        (rmse <= 0.04, f"RMSE at most .04 (largest of an organism {rmse:.4f})"),
        (
            _rmse(d) <= 0.06,
            f"D at its peak within 6% (RMSE {100 * _rmse(d):.1f}%, {100 * np.mean(np.abs(d) <= 0.06):.0f}% of redraws)",
        ),
        (near >= 0.9, f"peak within one checkpoint in 90% ({100 * near:.1f}%)"),
        (bool((rate < every).all()), f"rates along the run nearer than all of every's responses ({rate.mean():.4f}, {every.mean():.4f})"),
        (min(covered) >= 90, "intervals cover 90% (shares {:.1f}%, rates {:.1f}%, D {:.1f}%)".format(*covered)),
        (min(stops) >= 4 and max(stops) <= 10, f"auto stops at 4-10 anchors ({', '.join(map(str, stops))})"),
    )
    return "Bars: " + "; ".join(f"{text}: {'met' if ok else 'NOT met'}" for ok, text in checks) + "."


def _notes(n_redraws: int) -> list[str]:
    return [
        f"{n_redraws} redraws of {PER_ANCHOR} responses per prompt (24) and anchor from {POOL}; the anchors are those automatic sampling "
        f"chooses up to {N_ANCHORS}. Reference, independent of the pool: {REFERENCE} responses per prompt at each of the {2 * WINDOW} "
        f"checkpoints of the windows ({2 * WINDOW * REFERENCE} per prompt), of equal weight.",
        f"Rates: {RATES} independent responses per prompt at every {RATES_EVERY}th checkpoint; their own error is subtracted. The peak is "
        f"searched among {2 * AROUND + 1} splits around that of what automatic sampling drew, and compared with that of the whole pool.",
    ]
