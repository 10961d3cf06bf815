"""Three rules by which others accept a hypothesis about two sets of responses, so that they can be held against ours.

All three look at every response (there is no second half), at one difference of means a candidate, and at no length:

- *direction*: the mean level moves in the predicted direction by at least .01 of the scale.
- *lasso*: one minus the frequency with which a lasso of the side on all labels, refitted to half samples, keeps the label, read as
  a p-value below .05.
- *bootstrap*: the percentile interval of the difference of means excludes zero; every candidate by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from agent.bench_problems import Problem
from agent.llm.scripted import ScriptedJudge

THRESHOLD = 0.01
N_HALVES = 50
N_BOOTSTRAP = 1000
LEVEL = 0.05


def direction_rule(level: np.ndarray, after: np.ndarray, direction: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Candidates whose mean level moves by `THRESHOLD` as predicted.

    Args:
        level: `(k, n)` levels from 0 to 1, NaN where missing.
        after: `(n,)` bool.
        direction: Predicted sign of each.
        rng: Not used.

    Returns:
        Numbers of the accepted candidates.
    """
    moved = np.nanmean(level[:, after], axis=1) - np.nanmean(level[:, ~after], axis=1)
    return np.flatnonzero(moved * np.asarray(direction) >= THRESHOLD).tolist()


def lasso_rule(level: np.ndarray, after: np.ndarray, direction: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Candidates that a lasso keeps in more than 95% of half samples; its strength by cross-validation. Arguments as `direction_rule`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso, LassoCV

    spread = np.nanstd(level, axis=1, keepdims=True)
    x = (np.nan_to_num(level - np.nanmean(level, axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)).T
    y = np.where(after, 1.0, -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        strength = LassoCV(alphas=20, cv=5, random_state=int(rng.integers(2**31))).fit(x, y).alpha_
        kept = np.zeros(x.shape[1])
        for _ in range(N_HALVES):
            half = rng.choice(y.size, y.size // 2, replace=False)
            kept += Lasso(alpha=strength).fit(x[half], y[half]).coef_ != 0
    return np.flatnonzero(1 - kept / N_HALVES < LEVEL).tolist()


def bootstrap_rule(level: np.ndarray, after: np.ndarray, direction: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Candidates whose percentile interval of the difference of means excludes zero. Arguments as `direction_rule`."""
    differences = np.zeros((N_BOOTSTRAP, level.shape[0]))
    known, value = np.isfinite(level).astype(float), np.nan_to_num(level)
    for side, sign in ((after, 1.0), (~after, -1.0)):
        rows = np.flatnonzero(side)
        count = rng.multinomial(rows.size, np.full(rows.size, 1 / rows.size), size=N_BOOTSTRAP).astype(float)
        seen = np.maximum(count @ known[:, rows].T, 1)
        differences += sign * (count @ value[:, rows].T) / seen
    low, high = np.quantile(differences, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return np.flatnonzero((low > 0) | (high < 0)).tolist()


RIVALS: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[int], np.random.Generator], list[int]]] = {
    "direction": direction_rule,
    "lasso": lasso_rule,
    "bootstrap": bootstrap_rule,
}


def rival_accepts(problem: Problem) -> dict[str, list[int]]:
    """What each of the three rules accepts on a problem, by the same readings of the same judge that our loop gets."""
    responses = problem.recording.responses
    if responses.side is not None:
        rows, after = np.arange(len(responses)), np.array(responses.side) == "after"
    else:
        assert responses.step is not None  # noqa: S101 - a problem has sides or steps
        ends = np.isin(responses.step, [responses.step.min(), responses.step.max()])
        rows, after = np.flatnonzero(ends), responses.step[ends] > responses.step.min()
    level = readings(problem)[:, rows].astype(float)
    level[level < 0] = np.nan
    top = len(problem.script.candidates[0].parameter.levels) - 1
    signs = [p.direction for p in problem.planted]
    return {name: rule(level / top, after, signs, np.random.default_rng([problem.seed, 9])) for name, rule in RIVALS.items()}


def readings(problem: Problem) -> np.ndarray:
    """`(n_candidates, n)` first reading of every candidate on every response, -1 where missing."""
    judge, r = ScriptedJudge(problem.script), problem.recording.responses
    texts = list(zip(r.text_key, r.system, r.prompt, r.completion, strict=True))
    judged = [judge.judge(c.parameter, texts) for c in problem.script.candidates]
    return np.array([[-1 if j.level is None else j.level for j in row] for row in judged])
