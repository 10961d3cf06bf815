"""When things happened: the transition, the gradient norm, the rotation, and what moved before what (METHOD 4, 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.measure import estimate_of
from agent.records import Estimate, EventRecord, OrderRecord, ParameterFinding, RotationRecord, TrainingTraceRecord, TransitionRecord
from agent.workbench import Workbench
from probes.gradients import grad_norm_peak
from probes.lora import gram_of_b, leg_lengths, local_cosine, rotation
from probes.resampling import jackknife
from probes.trajectory import Onset
from tracing import TrainingTrace
from tracing.adapters import read_adapters

GRADIENT = 9
"""Purpose of random numbers."""
MECHANISMS = ("gradient norm", "rotation")


def transition_record(work: Workbench) -> TransitionRecord | None:
    """The transition curve and its peak; None without likelihoods."""
    detection = work.chosen[1]
    if detection is None:
        return None
    curve, found = detection.curve, detection.transition
    low, high = curve.limits()
    n = int(curve.per_prompt.shape[0])
    peak = gradient_peak(work)
    step = estimate_of(found.step, n)
    weights = work.weights
    return TransitionRecord(
        window=curve.window,
        splits=tuple(float(s) for s in curve.split_steps),
        curve=_plain(curve.curve),
        low=_plain(low),
        high=_plain(high),
        found=found.found,
        peak=step,
        prominence=estimate_of(found.ratio, n),
        reason=found.reason,
        grad_norm_peak=None if peak is None else peak.estimate,
        lag_from_grad_norm=lag_of(peak, step) if found.found and peak is not None else None,
        ess_fifth_percentile=None if weights is None else float(np.percentile(weights.ess, 5)),
        weight_check_failures=0 if weights is None else int(weights.failed.sum()),
        weight_checks=0 if weights is None else int(weights.failed.size),
    )


def _plain(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(float(v) if np.isfinite(v) else None for v in values)


def other_transitions(work: Workbench) -> tuple[Estimate, ...]:
    """Places of the further transitions on the same curve, highest first."""
    detection = work.chosen[1]
    if detection is None:
        return ()
    return tuple(estimate_of(t.step, int(detection.curve.per_prompt.shape[0])) for t in detection.others)


@dataclass(frozen=True)
class Place:
    """Something with a place on the step axis; `loo` is its place without each prompt, None when prompts do not enter."""

    name: str
    place: Estimate
    loo: np.ndarray | None = None

    @property
    def event(self) -> EventRecord:
        """As it is written down."""
        return EventRecord(name=self.name, kind="mechanism" if self.name in MECHANISMS else "behaviour", place=self.place)


def places_of(work: Workbench, onsets: Mapping[str, Onset], accepted: list[ParameterFinding], rotated: Estimate | None) -> list[Place]:
    """Everything that has a place: the peak of D, length, the accepted parameters, the gradient norm and the rotation, earliest first."""
    detection = work.chosen[1]
    n = work.contrast.n_prompts
    places: list[Place] = []
    if detection is not None and detection.transition.found:
        places.append(Place("peak of D", estimate_of(detection.transition.step, n), detection.transition.places))
    for name in ("length", *(p.parameter.name for p in accepted)):
        when = onsets.get(name)
        if when is not None and np.isfinite(when.t50.estimate):
            places.append(Place(name, estimate_of(when.t50, n), when.places))
    for name, found in zip(MECHANISMS, (gradient_peak(work), rotated), strict=True):
        if found is not None and found.estimate is not None:
            places.append(Place(name, found))
    return sorted(places, key=lambda p: p.place.estimate or 0.0)


def order_of(places: list[Place], n: int) -> list[OrderRecord]:
    """What moved before what, for every pair; `n` prompts."""
    return [_order_of(first, second, n) for k, first in enumerate(places) for second in places[k + 1 :]]


def _order_of(first: Place, second: Place, n: int) -> OrderRecord:
    """Paired by prompt where both rest on prompts: what moves both places together cancels."""
    if first.loo is not None and second.loo is not None and first.loo.shape == second.loo.shape:
        difference = (second.place.estimate or 0.0) - (first.place.estimate or 0.0)
        lag = estimate_of(jackknife(difference, second.loo - first.loo), n)
    else:
        lag = lag_of(first.place, second.place)
    return order_record(first.name, second.name, lag)


def order_record(first: str, second: str, lag: Estimate) -> OrderRecord:
    """Two events by name and their lag: settled when all of its interval lies above 0."""
    return OrderRecord(first=first, second=second, lag=lag, settled=lag.low is not None and lag.low > 0)


def lag_of(first: Estimate, second: Estimate) -> Estimate:
    """Second minus first for two independent places: the limits add in squares (Zou & Donner 2008)."""
    a, b = first, second
    if a.estimate is None or b.estimate is None:
        return Estimate(estimate=None, note="one of the two has no place")
    lag = b.estimate - a.estimate
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(estimate=lag, n=b.n)
    low = lag - np.hypot(b.estimate - b.low, a.high - a.estimate)
    high = lag + np.hypot(b.high - b.estimate, a.estimate - a.low)
    return Estimate(estimate=lag, low=float(low), high=float(high), n=b.n)


def gradient_peak(work: Workbench) -> Estimate | None:
    """Place of the gradient norm's peak with interval, or None when there is no trace or no peak."""
    training = work.recording.training
    if training is None:
        return None
    peak = grad_norm_peak(training.step, training.grad_norm, work.rng(GRADIENT))
    return None if peak is None else Estimate(estimate=peak.step, low=peak.low, high=peak.high, n=training.step.size)


def rotation_record(work: Workbench) -> RotationRecord | None:
    """The local cosine of the run directory's adapters and where they turned; None without adapters or with too few checkpoints."""
    folder = Path(work.config.run) / "adapters"
    if work.recording.manifest is None or not folder.is_dir():
        return None
    adapters = read_adapters(folder)
    legs = leg_lengths(len(adapters.steps))
    if not legs:
        return None
    gram = gram_of_b(f.b for f in adapters.modules.values())
    leg, found = legs[len(legs) // 2], rotation(gram, adapters.steps)
    return RotationRecord(
        leg=leg,
        steps=tuple(int(s) for s in adapters.steps),
        cosine=tuple(float(c) if np.isfinite(c) else None for c in local_cosine(gram, leg)),
        place=None if found is None else Estimate(estimate=found.step, low=found.low, high=found.high, n=len(adapters.steps)),
    )


def training_record(training: TrainingTrace | None) -> TrainingTraceRecord | None:
    """The training log as plain values; NaN becomes None."""
    if training is None:
        return None
    return TrainingTraceRecord(
        steps=tuple(int(s) for s in training.step),
        grad_norm=_plain(training.grad_norm),
        loss=_plain(training.loss),
        learning_rate=_plain(training.learning_rate),
    )
