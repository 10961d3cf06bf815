"""Planted runs: response tables whose dissimilarity, shares and onsets are known exactly (METHOD 7).

Every prompt has a finite table of responses with labels. Checkpoint t answers from `P_t = (1-a_t) P_0 + a_t P_1`, where
P_1 tilts P_0 by the planted parameters and by a part that no parameter sees. Everything the estimators estimate can
then be computed from the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from probes.dissimilarity import Contrast, dissimilarity, likelihood_contrast, side_contrast
from probes.explained_share import dummies


@dataclass(frozen=True)
class PlantedRun:
    """Response tables of a planted run.

    Attributes:
        before, after: `(n_prompts, n_outcomes)` probabilities of the two ends, rows sum to 1.
        labels: `(n_parameters, n_prompts, n_outcomes)` int levels of each planted parameter.
        course: `(n_steps,)` mixture weight a_t of `after`, in [0, 1]; `(n_steps, n_prompts, 1)` when every prompt has its own.
    """

    before: np.ndarray
    after: np.ndarray
    labels: np.ndarray
    course: np.ndarray

    def table(self, step: int) -> np.ndarray:
        """`(n_prompts, n_outcomes)` probabilities at checkpoint `step`."""
        a = self.course[step]
        return np.asarray((1 - a) * self.before + a * self.after)

    def at_prompts(self, prompts: np.ndarray) -> PlantedRun:
        """The run on some of its prompts: intervals speak for the population these were taken from."""
        course = self.course if self.course.ndim == 1 else self.course[:, prompts]
        return PlantedRun(self.before[prompts], self.after[prompts], self.labels[:, prompts], course)

    def mixture(self, steps: Sequence[int]) -> np.ndarray:
        """Mean table over some checkpoints."""
        return np.asarray(np.mean([self.table(t) for t in steps], axis=0))


@dataclass(frozen=True)
class PlantedSample:
    """Responses drawn from a planted run: outcome `(n,)`, prompt `(n,)`, drawn_at `(n,)` and log-likelihood `(n, n_steps)`."""

    outcome: np.ndarray
    prompt: np.ndarray
    drawn_at: np.ndarray
    log_likelihood: np.ndarray

    def labels_of(self, run: PlantedRun) -> np.ndarray:
        """`(n_parameters, n)` true levels of the drawn responses."""
        return np.asarray(run.labels[:, self.prompt, self.outcome])


def planted_run(
    rng: np.random.Generator,
    *,
    n_prompts: int,
    effects: Sequence[float],
    hidden: float = 0.3,
    n_outcomes: int = 400,
    n_levels: int = 5,
    correlation: float = 0.0,
    heterogeneity: float = 0.2,
    course: np.ndarray | None = None,
) -> PlantedRun:
    """A random planted run.

    Args:
        rng: Source of all randomness.
        n_prompts: Prompts.
        effects: One per parameter: log-odds added per standardised level (0: a distractor that does not move).
        hidden: Standard deviation of the log-odds change that no parameter sees.
        n_outcomes: Distinct responses per prompt.
        n_levels: Levels of each parameter.
        correlation: Correlation of the latent scores of any two parameters, in [0, 1).
        heterogeneity: Relative standard deviation of each effect over prompts.
        course: `(n_steps,)` mixture weights; default two checkpoints, 0 and 1.

    Returns:
        The tables.
    """
    k = len(effects)
    shared = rng.standard_normal((1, n_prompts, n_outcomes))
    latent = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal((k, n_prompts, n_outcomes))
    edges = np.linspace(-1.2, 1.2, n_levels - 1)
    labels = np.searchsorted(edges, latent)
    score = (labels - (n_levels - 1) / 2) / max(1.0, (n_levels - 1) / 4)
    slope = np.asarray(effects)[:, None] * (1 + heterogeneity * rng.standard_normal((k, n_prompts)))
    tilt = np.einsum("kp,kpo->po", slope, score) + hidden * rng.standard_normal((n_prompts, n_outcomes))
    base = rng.dirichlet(np.full(n_outcomes, 2.0), size=n_prompts)
    after = base * np.exp(tilt)
    after /= after.sum(axis=1, keepdims=True)
    course = np.array([0.0, 1.0]) if course is None else course
    return PlantedRun(base, after, labels, course)


def logistic_course(n_steps: int, midpoint: float, width: float) -> np.ndarray:
    """Mixture weights `1/(1+exp(-(t-midpoint)/width))` for checkpoints t = 0..n_steps-1."""
    return np.asarray(1 / (1 + np.exp(-(np.arange(n_steps) - midpoint) / width)))


def staggered_course(n_steps: int, midpoints: np.ndarray, width: float) -> np.ndarray:
    """`(n_steps, n_prompts, 1)` logistic mixture weights with a midpoint of each prompt's own: prompts do not change all at once."""
    return np.stack([logistic_course(n_steps, float(m), width) for m in midpoints], axis=1)[:, :, None]


def exact_course(run: PlantedRun, label: np.ndarray) -> np.ndarray:
    """Exact expected level `(n_prompts, n_steps)` of a label `(n_prompts, n_outcomes)` along the run."""
    return np.stack([(run.table(t) * label).sum(axis=1) for t in range(len(run.course))], axis=1)


def exact_curve(run: PlantedRun, window: int) -> np.ndarray:
    """Exact D(t*) per prompt, `(n_prompts, n_splits)`, between the windows left and right of every split with complete windows."""
    tables = np.stack([run.table(t) for t in range(len(run.course))])
    means = np.lib.stride_tricks.sliding_window_view(tables, window, axis=0).mean(axis=-1)
    return np.asarray(dissimilarity(means[:-window], means[window:])).T


def draw(run: PlantedRun, steps: Sequence[int], n_each: int, rng: np.random.Generator) -> PlantedSample:
    """`n_each` responses per prompt at each of `steps`, scored under every checkpoint."""
    outcome, prompt, drawn_at = [], [], []
    for t in steps:
        cumulative = np.cumsum(run.table(t), axis=1)
        for p in range(run.before.shape[0]):
            u = rng.random(n_each) * cumulative[p, -1]
            outcome.append(np.searchsorted(cumulative[p], u, side="right"))
            prompt.append(np.full(n_each, p))
            drawn_at.append(np.full(n_each, t))
    rows, code = np.concatenate(outcome), np.concatenate(prompt)
    log_likelihood = np.log(np.stack([run.table(t)[code, rows] for t in range(len(run.course))], axis=1))
    return PlantedSample(rows, code, np.concatenate(drawn_at), log_likelihood)


def contrast_of(sample: PlantedSample, left: Sequence[int], right: Sequence[int], *, likelihoods: bool) -> Contrast:
    """The contrast of two windows from drawn responses, with likelihoods or from sides alone (responses drawn in the windows only)."""
    if likelihoods:
        return likelihood_contrast(sample.log_likelihood, sample.drawn_at, sample.prompt, np.asarray(left), np.asarray(right))
    rows = np.flatnonzero(np.isin(sample.drawn_at, [*left, *right]))
    return side_contrast(np.isin(sample.drawn_at[rows], right), sample.prompt[rows], rows)


def exact_change(run: PlantedRun, left: Sequence[int], right: Sequence[int], labels: np.ndarray | None = None) -> float:
    """Exact D (labels None) or D[O] of the additive model of `labels (k, n_prompts, n_outcomes)`, from the tables."""
    p, q = run.mixture(left), run.mixture(right)
    m, s = (p + q) / 2, (p - q) / (p + q)
    if labels is None:
        return float((m * s * s).sum(axis=1).mean())
    n_prompts, n_outcomes = m.shape
    x = np.concatenate([dummies(label.ravel()) for label in labels], axis=1).reshape(n_prompts, n_outcomes, -1)
    x = x - np.einsum("po,pok->pk", m, x)[:, None, :]
    gram = np.einsum("po,pok,pol->kl", m, x, x)
    right_side = np.einsum("po,pok,po->k", m, x, s)
    slope: np.ndarray = np.linalg.pinv(gram, rcond=1e-12, hermitian=True) @ right_side
    return float(np.dot(right_side, slope) / n_prompts)


def planted_with_length(
    rng: np.random.Generator,
    *,
    n_prompts: int,
    effects: Sequence[float],
    length_effect: float = 0.0,
    length_correlation: float = 0.0,
    affected: float = 1.0,
    hidden: float = 0.3,
    n_outcomes: int = 400,
    n_levels: int = 5,
    correlation: float = 0.0,
    heterogeneity: float = 0.2,
    course: np.ndarray | None = None,
) -> tuple[PlantedRun, np.ndarray]:
    """A random planted run whose responses also have a length, which may move by itself and may go with the parameters.

    Args:
        rng: Source of all randomness.
        n_prompts: Prompts.
        effects: One per parameter: log-odds added per standardised level (0: a distractor).
        length_effect: Log-odds added per standard deviation of log length.
        length_correlation: Correlation of every parameter's latent score with log length, in (-1, 1).
        affected: Part of the later responses that come from the changed table; the others come from the table before.
        hidden: Standard deviation of the log-odds change that no parameter sees.
        n_outcomes: Distinct responses per prompt.
        n_levels: Levels of each parameter.
        correlation: Correlation of the parameters' latent scores beyond what length gives them, in [0, 1).
        heterogeneity: Relative standard deviation of each effect over prompts.
        course: Mixture weights; default two checkpoints, 0 and 1.

    Returns:
        The tables and the standardised log length `(n_prompts, n_outcomes)`.
    """
    k, shape = len(effects), (n_prompts, n_outcomes)
    length = rng.standard_normal(shape)
    shared = rng.standard_normal((1, *shape))
    own = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal((k, *shape))
    latent = length_correlation * length + np.sqrt(1 - length_correlation**2) * own
    labels = np.searchsorted(np.linspace(-1.2, 1.2, n_levels - 1), latent)
    score = (labels - (n_levels - 1) / 2) / max(1.0, (n_levels - 1) / 4)
    slope = np.asarray(effects)[:, None] * (1 + heterogeneity * rng.standard_normal((k, n_prompts)))
    own_slope = length_effect * (1 + heterogeneity * rng.standard_normal(n_prompts))
    tilt = np.einsum("kp,kpo->po", slope, score) + own_slope[:, None] * length + hidden * rng.standard_normal(shape)
    before = rng.dirichlet(np.full(n_outcomes, 2.0), size=n_prompts)
    changed = before * np.exp(tilt)
    after = (1 - affected) * before + affected * changed / changed.sum(axis=1, keepdims=True)
    return PlantedRun(before, after, labels, np.array([0.0, 1.0]) if course is None else course), length


def reading_matrix(n_levels: int, kappa: float, missing: float = 0.0) -> np.ndarray:
    """`(n_levels, n_levels + 1)` probabilities that a level is read as another or (last) not at all.

    A reading is missing with probability `missing`, else right with probability `kappa`, else any level by chance.
    """
    seen = kappa * np.eye(n_levels) + (1 - kappa) / n_levels
    return np.concatenate([(1 - missing) * seen, np.full((n_levels, 1), missing)], axis=1)


@dataclass(frozen=True)
class ExactShares:
    """Exact D[O] of any set of labels that are read with error, from the normal equations of all of them.

    Attributes:
        total: Exact D.
        gram: `(c, c)` second moments of the level dummies of all labels, centred within prompt, mean over prompts.
        right: `(c,)` their covariance with s.
        columns: Columns of each label.
    """

    total: float
    gram: np.ndarray
    right: np.ndarray
    columns: tuple[slice, ...]

    def change(self, labels: Sequence[int]) -> float:
        """D[O] of the additive model of some labels, by their number."""
        if not labels:
            return 0.0
        c = np.concatenate([np.arange(self.columns[k].start, self.columns[k].stop) for k in labels])
        return float(self.right[c] @ np.linalg.pinv(self.gram[np.ix_(c, c)], rcond=1e-9, hermitian=True) @ self.right[c])


def exact_shares(
    run: PlantedRun, left: Sequence[int], right: Sequence[int], labels: np.ndarray, readings: Sequence[np.ndarray]
) -> ExactShares:
    """Exact change that labels show, alone and together, when each is read with errors of its own.

    Args:
        run: The tables.
        left: Checkpoints of the before side.
        right: Checkpoints of the after side.
        labels: `(k, n_prompts, n_outcomes)` true levels.
        readings: One `reading_matrix` per label.

    Returns:
        The normal equations; `change` equals `exact_change` when nothing is misread.
    """
    p, q = run.mixture(left), run.mixture(right)
    m, s = (p + q) / 2, (p - q) / (p + q)
    edges = np.cumsum([0, *(matrix.shape[1] for matrix in readings)])
    columns = tuple(slice(int(a), int(b)) for a, b in pairwise(edges))
    gram, covariance = np.zeros((edges[-1], edges[-1])), np.zeros(edges[-1])
    for at in range(m.shape[0]):
        x = np.concatenate([matrix[label[at]] for matrix, label in zip(readings, labels, strict=True)], axis=1)
        mean, weighted = m[at] @ x, m[at][:, None] * x
        second = weighted.T @ x
        for own in columns:  # a reading is one level or another: its own second moments are those of an indicator
            second[own, own] = np.diag(mean[own])
        gram += second - np.outer(mean, mean)
        covariance += weighted.T @ s[at] - mean * (m[at] @ s[at])
    n_prompts = m.shape[0]
    return ExactShares(exact_change(run, left, right), gram / n_prompts, covariance / n_prompts, columns)
