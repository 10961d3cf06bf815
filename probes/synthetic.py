"""Planted runs: response tables whose dissimilarity, shares and onsets are known exactly (METHOD 7).

Every prompt has a finite table of responses with labels. Checkpoint t answers from `P_t = (1-a_t) P_0 + a_t P_1`, where
P_1 tilts P_0 by the planted parameters and by a part that no parameter sees. Everything the estimators estimate can
then be computed from the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probes.dissimilarity import Contrast, likelihood_contrast, side_contrast
from probes.explained_share import dummies


@dataclass(frozen=True)
class PlantedRun:
    """Response tables of a planted run.

    Attributes:
        before, after: `(n_prompts, n_outcomes)` probabilities of the two ends, rows sum to 1.
        labels: `(n_parameters, n_prompts, n_outcomes)` int levels of each planted parameter.
        course: `(n_steps,)` mixture weight a_t of `after`, in [0, 1].
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
        return PlantedRun(self.before[prompts], self.after[prompts], self.labels[:, prompts], self.course)

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
    log_likelihood = np.log(np.stack([run.table(t)[code, rows] for t in range(run.course.size)], axis=1))
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
