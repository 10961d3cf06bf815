"""How far the judge can be relied on: accepted parameters are read again, by itself, in other words, by others (METHOD 4, judge error)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agent.errors import AwaitingError
from agent.judge import Judge
from agent.records import Estimate, OrderParameter, ReadingAgreement, ReadingKind
from agent.workbench import Workbench
from probes.reliability import krippendorff_alpha, second_reading
from probes.resampling import Interval

REREAD = 10
"""Purpose of random numbers."""


@dataclass(frozen=True)
class Reading:
    """One way of reading a response again."""

    kind: ReadingKind
    judge: Judge
    repeat: int


def ways(work: Workbench) -> list[Reading]:
    """How accepted parameters are read again: by the judge once more, in other words, by the second judge; none for an exact judge."""
    same_again = work.judge.deterministic or getattr(work.judge, "repeats_in_other_words", False)
    found = [] if same_again else [Reading("repeat", work.judge, 1)]
    other_words = getattr(work.judge, "in_other_words", None)
    found += [] if other_words is None else [Reading("other words", other_words, 0)]
    return found + ([] if work.second_judge is None else [Reading("second judge", work.second_judge, 0)])


def reread_rows(work: Workbench) -> np.ndarray:
    """Rows of the confirm half that are read again: at most `config.reread`, drawn once for all parameters."""
    rows = work.confirm_rows
    if rows.size <= work.config.reread:
        return rows
    return np.sort(work.rng(REREAD).choice(rows, work.config.reread, replace=False))


def read_again(work: Workbench, accepted: list[OrderParameter]) -> None:
    """Have everything read that `agreements` needs; what is on disk already is not read again.

    Raises:
        AwaitingError: Some of it is answered elsewhere; everything that can be asked by then is written down.
    """
    rows, later = reread_rows(work), None
    for parameter in accepted:
        if parameter.rule is not None or not rows.size:
            continue  # counted, not read
        for way in ways(work):
            try:
                work.judge_rows(parameter, rows, way.repeat, way.judge)
            except AwaitingError as error:
                later = error
    if later is not None:
        raise later


def agreements(work: Workbench, parameter: OrderParameter, accepted: bool) -> tuple[ReadingAgreement, ...]:
    """Every other reading of one parameter held against the judge's own; people's alone for one that is not accepted."""
    reread = _reread(work, parameter) if accepted else ()
    return (*(found for _, found in reread), *_by_people(work, parameter))


def reliability(work: Workbench, parameter: OrderParameter) -> dict[str, float | None]:
    """The same of an accepted parameter in a few numbers: alpha of all judges' readings, range of the share without reading error."""
    compared = list(_reread(work, parameter))
    if not compared:
        return {}
    own = work.labels_at(parameter, reread_rows(work))
    alpha = krippendorff_alpha(np.stack([own, *(levels for levels, _ in compared)]), len(parameter.levels))
    shares = [found.noise_free_share.estimate for _, found in compared]
    known = [share for share in shares if share is not None]
    return {
        "krippendorff_alpha": alpha,
        "noise_free_share_low": min(known, default=None),
        "noise_free_share_high": max(known, default=None),
    }


def _reread(work: Workbench, parameter: OrderParameter) -> Iterator[tuple[np.ndarray, ReadingAgreement]]:
    rows = reread_rows(work)
    if parameter.rule is None and rows.size:
        for way in ways(work):
            levels = work.labels_at(parameter, rows, way.repeat, way.judge)
            yield levels, _agreement(work, parameter, rows, levels, way.kind, way.judge.id)


def _by_people(work: Workbench, parameter: OrderParameter) -> Iterator[ReadingAgreement]:
    given = {} if work.human_labels is None else work.human_labels.of(parameter)
    for rater, levels in sorted(given.items()):
        rows = work.contrast.complete(np.flatnonzero(np.isin(work.contrast.index, list(levels))))
        if rows.size:
            yield _agreement(work, parameter, rows, np.array([levels[i] for i in work.contrast.index[rows]]), "human", rater)


def notes(work: Workbench, parameters: list[OrderParameter]) -> list[str]:
    """What of the people's labels could not be used."""
    labels, out = work.human_labels, []
    if labels is not None and labels.strangers:
        out.append(f"{labels.path}: {labels.strangers} label(s) of responses that are not in this recording were left out.")
    unused = [] if labels is None else labels.unused(parameters)
    if labels is not None and unused:
        out.append(f"{labels.path}: no order parameter here is called {', '.join(map(repr, unused))}; these labels were not used.")
    return out


def _agreement(
    work: Workbench, parameter: OrderParameter, rows: np.ndarray, levels: np.ndarray, kind: ReadingKind, reader: str
) -> ReadingAgreement:
    part = work.contrast.take(rows)
    kept = np.isin(rows, work.contrast.complete(rows))
    found = second_reading(part, work.labels_at(parameter, rows)[kept], levels[kept], len(parameter.levels))
    n = found.both.n
    return ReadingAgreement(
        reading=kind,
        reader=reader,
        n_read=found.n,
        n_both=n,
        exact=found.both.exact,
        weighted_kappa=_estimate(found.weighted_kappa, n),
        krippendorff_alpha=_estimate(found.krippendorff_alpha, n),
        missing_before=float(found.missing[1, 0]),
        missing_after=float(found.missing[1, 1]),
        missing_kappa=found.missing_kappa,
        noise_free_share=_estimate(found.noise_free, n, "" if part.likelihoods else "of D[O]"),
    )


def _estimate(interval: Interval, n: int, note: str = "") -> Estimate:
    if not math.isfinite(interval.estimate):
        return Estimate(estimate=None, n=n, note="undefined here")
    low, high = (x if math.isfinite(x) else None for x in (interval.low, interval.high))
    return Estimate(estimate=interval.estimate, low=low, high=high, n=n, note=note)
