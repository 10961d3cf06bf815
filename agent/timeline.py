"""Mechanism and behaviour on one axis where nothing was discovered yet: of a recorded run, or of a folder of adapters (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.config import make_config
from agent.errors import ConfigError
from agent.judge import make_judge
from agent.mechanism import mechanism_record
from agent.proposer import make_proposer
from agent.records import EventRecord, RepeatedRecord, Timeline
from agent.timing import Place, lag_of, order_of, order_record, places_of, training_record, transition_record
from agent.workbench import Workbench
from tracing import load
from tracing.run_directory import MANIFEST_NAME


def timeline_without_findings(folder: Path, ks: Sequence[int] | None = None) -> Timeline:
    """What a folder tells before anything was discovered on it: a recorded run's transition, log and adapters, or adapters alone.

    Raises:
        ConfigError: The folder holds neither a recording nor three adapters that move.
    """
    mechanism = mechanism_record(folder, ks)
    if not (folder / MANIFEST_NAME).is_file():
        if mechanism is None:
            raise ConfigError(f"{folder}: expected a run directory or a folder of three LoRA adapters or more that move, found neither")
        rotated = [] if mechanism.rotation is None else [Place("rotation", mechanism.rotation)]
        return Timeline(
            source=str(folder),
            events=tuple(place.event for place in rotated),
            order=(),
            training=None,
            mechanism=mechanism,
            transition=None,
            courses=(),
            notes=("Adapters only: no behaviour was recorded here.",),
        )
    work = Workbench(load(folder), make_config(run=str(folder)), folder, make_proposer("embedded"), make_judge("embedded"))
    places = places_of(work, {}, [], None if mechanism is None else mechanism.rotation)
    return Timeline(
        source=str(folder),
        events=tuple(place.event for place in places),
        order=tuple(order_of(places, work.contrast.n_prompts)),
        training=training_record(work.recording.training),
        mechanism=mechanism,
        transition=transition_record(work),
        courses=(),
        notes=(f"No order parameters yet: discover --run {folder}",),
    )


def with_repeats(timeline: Timeline, repeated: RepeatedRecord) -> Timeline:
    """The timeline with the rotation of repeated runs' mean path as one more event, and its lags to all others."""
    if repeated.rotation is None or repeated.rotation.estimate is None:
        return timeline.model_copy(update={"repeated": repeated})
    event = EventRecord(name=f"rotation, mean of {len(repeated.runs)} runs", kind="mechanism", place=repeated.rotation)
    events = sorted((*timeline.events, event), key=lambda each: each.place.estimate or 0.0)
    at = events.index(event)
    pairs = [(other, event) for other in events[:at]] + [(event, other) for other in events[at + 1 :]]
    order = [order_record(first.name, second.name, lag_of(first.place, second.place)) for first, second in pairs]
    return timeline.model_copy(update={"repeated": repeated, "events": tuple(events), "order": (*timeline.order, *order)})
