"""Mechanism and behaviour on one axis of optimizer steps, as a Plotly figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from agent.records import CourseRecord, EventRecord, Findings, MechanismRecord, ParameterFinding, Timeline
from agent.report.figures import COLOURS, RESIDUAL_COLOUR, label
from agent.report.shown import step
from agent.report.visible import one_line

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_GRADIENT, _ROTATION, _BEHAVIOUR = RESIDUAL_COLOUR, COLOURS[1], COLOURS[0]
COURSES_SHOWN = 8
PANELS = ("events", "gradient", "cosine", "change", "courses")
Traces = Callable[[Timeline], Iterator[dict[str, Any]]]


def timeline_of(findings: Findings, mechanism: MechanismRecord | None = None) -> Timeline:
    """The timeline that findings hold, with how the adapter moved where that is known."""
    accepted = [p for p in findings.parameters if p.verdict == "accepted"]
    return Timeline(
        source=findings.run,
        events=findings.events,
        order=findings.order,
        training=findings.training,
        mechanism=mechanism,
        transition=findings.transition,
        courses=tuple(course for p in accepted if (course := _course(p)) is not None),
    )


def timeline_figure(timeline: Timeline, panels: Sequence[str] = PANELS) -> go.Figure | None:
    """Panels from top to bottom: what happened when (places with intervals), gradient norm, local cosine, D(t*), order parameters.

    Args:
        timeline: What is drawn.
        panels: Which of `PANELS`, in this order.

    Returns:
        None when there is nothing that has a place and nothing that has a curve.
    """
    made: dict[str, tuple[str, Traces, float]] = {
        "events": ("What happened when", _events, 0.6 + 0.16 * len(timeline.events)),
        "gradient": ("Gradient norm", _gradient, 1.0),
        "cosine": ("Local cosine of the adapter (straight −1, right angle 0)", _cosines, 1.0),
        "change": ("Change between the windows left and right of a split, D(t*)", _change, 1.0),
        "courses": ("Order parameters: expected level, as part of its scale", _courses, 1.0),
    }
    drawn = [(title, traces, size) for title, make, size in (made[name] for name in panels) if (traces := list(make(timeline)))]
    if not drawn:
        return None
    from plotly.subplots import make_subplots

    total = sum(size for _, _, size in drawn)
    figure = make_subplots(
        rows=len(drawn),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.3 / (len(drawn) + 1) / max(1.0, total / len(drawn)),
        row_heights=[size / total for _, _, size in drawn],
        subplot_titles=[title for title, _, _ in drawn],
    )
    for row, (_, traces, _) in enumerate(drawn, start=1):
        figure.add_traces(traces, rows=[row] * len(traces), cols=[1] * len(traces))
        for event in timeline.events:
            if event.place.estimate is not None and event.name in ("peak of D", "gradient norm", "rotation"):
                figure.add_vline(x=event.place.estimate, line={"width": 1, "dash": "dot", "color": _colour(event)}, row=row, col=1)
    figure.update_yaxes(automargin=True, gridcolor="#d9dce0", zerolinecolor="#9aa0a6")
    figure.update_xaxes(gridcolor="#d9dce0", zerolinecolor="#9aa0a6")
    figure.update_xaxes(title_text="optimizer step", row=len(drawn), col=1)
    if timeline.events and panels[0] == "events":
        figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_layout(
        template="none",
        height=int(110 + 170 * total),
        margin={"l": 58, "r": 16, "t": 36, "b": 70},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -80 / (110 + 170 * total), "yanchor": "top", "x": 0},
    )
    figure.update_annotations(font={"size": 13}, x=0, xanchor="left")
    return figure


def timeline_alt(timeline: Timeline) -> str:
    """What the figure shows, in words."""
    return "In order: " + "; ".join(f"{one_line(event.name, 60)} ({event.kind}) at step {place_text(event)}" for event in timeline.events)


def place_text(event: EventRecord) -> str:
    """`32 [31, 33]`, without limits where there are none."""
    place = event.place
    limits = "" if place.low is None or place.high is None else f" [{step(place.low)}, {step(place.high)}]"
    return f"{step(place.estimate)}{limits}"


def _colour(event: EventRecord) -> str:
    return _BEHAVIOUR if event.kind == "behaviour" else _ROTATION if event.name.startswith("rotation") else _GRADIENT


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    for event in timeline.events:
        place = event.place
        if place.estimate is None:
            continue
        low, high = (place.estimate if limit is None else limit for limit in (place.low, place.high))
        yield {
            "type": "scatter",
            "x": [place.estimate],
            "y": [label(event.name)],
            "mode": "markers",
            "marker": {"color": _colour(event), "size": 10, "symbol": "diamond" if event.kind == "mechanism" else "circle"},
            "error_x": {"type": "data", "symmetric": False, "array": [high - place.estimate], "arrayminus": [place.estimate - low]},
            "name": event.kind,
            "showlegend": False,
            "hovertemplate": f"{label(event.name)}: step {place_text(event)}<extra></extra>",
        }


def _gradient(timeline: Timeline) -> Iterator[dict[str, Any]]:
    training = timeline.training
    if training is not None and any(value is not None for value in training.grad_norm):
        yield _line(training.steps, training.grad_norm, "gradient norm", _GRADIENT, "solid")


def _cosines(timeline: Timeline) -> Iterator[dict[str, Any]]:
    mechanism, repeated = timeline.mechanism, timeline.repeated
    if repeated is not None:
        yield _line(repeated.steps, repeated.cosine, f"local cosine, mean of {len(repeated.runs)} runs", RESIDUAL_COLOUR, "solid")
    if mechanism is None:
        return
    for kind, curves, dash in (("", mechanism.cosine, "solid"), (", normalised", mechanism.cosine_normalised, "dot")):
        for place, (k, values) in enumerate(curves.items()):
            yield _line(mechanism.steps, values, f"local cosine, k = {k}{kind}", COLOURS[1 + place % (len(COLOURS) - 1)], dash)


def _change(timeline: Timeline) -> Iterator[dict[str, Any]]:
    transition = timeline.transition
    if transition is None:
        return
    splits = list(transition.splits)
    yield {
        "type": "scatter",
        "x": splits + splits[::-1],
        "y": [*transition.high, *transition.low[::-1]],
        "fill": "toself",
        "fillcolor": "rgba(0,114,178,0.22)",
        "line": {"width": 0},
        "name": "95% interval of D",
        "hoverinfo": "skip",
        "showlegend": False,
    }
    yield _line(splits, transition.curve, "D(t*)", _BEHAVIOUR, "solid")


def _courses(timeline: Timeline) -> Iterator[dict[str, Any]]:
    for place, each in enumerate(timeline.courses[:COURSES_SHOWN]):
        colour, dash = COLOURS[place % len(COLOURS)], _DASHES[place % len(_DASHES)]
        yield _line(each.course.steps, each.course.estimate, label(each.name), colour, dash)


def _line(x: Any, y: Any, name: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": list(x),
        "y": list(y),
        "mode": "lines",
        "connectgaps": False,
        "line": {"color": colour, "width": 2, "dash": dash},
        "name": name,
        "hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>",
    }


def _course(found: ParameterFinding) -> CourseRecord | None:
    course = found.course
    if course is None:
        return None
    top = max(1, len(found.parameter.levels) - 1)

    def scaled(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return tuple(None if value is None else value / top for value in values)

    part = course.model_copy(update={name: scaled(getattr(course, name)) for name in ("estimate", "low", "high")})
    return CourseRecord(name=found.parameter.name, course=part, onset=found.onset, t10=found.t10, t90=found.t90)


def report_timeline(findings: Findings) -> go.Figure | None:
    """The part of the figure that a report does not show elsewhere, the places; None without any."""
    return timeline_figure(timeline_of(findings), ("events",))


def report_timeline_alt(findings: Findings) -> str:
    """The same in words."""
    return timeline_alt(timeline_of(findings))
