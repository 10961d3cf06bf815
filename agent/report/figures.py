"""The report's plots as Plotly figures; a notebook gets the same ones.

Colours are Okabe and Ito's, told apart by readers with any kind of colour vision; dashes, symbols and patterns repeat what colour says.
Text in figures is untrusted: Plotly reads a small subset of HTML in labels, so every label goes through `label`.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.records import Findings
from agent.report.ranking import Row, joint, ranked, residual
from agent.report.shown import number, shown, step
from agent.report.visible import flat_line, one_line, visible

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
RESIDUAL_COLOUR = "#8A8F98"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_PATTERNS = ("", "/", ".", "x", "-", "+")
COURSES_SHOWN = 12
PROMPTS_SHOWN = 200
"""Rows of the heat map; of more prompts those with the largest shares are drawn."""


def label(text: str, limit: int = 40) -> str:
    """Untrusted `text` as a Plotly label: one line, cut, with nothing that Plotly would read as markup or as a template."""
    flat, rest = flat_line(text, limit)
    cut = f"{visible(flat)}…" if rest else visible(flat)
    return html.escape(cut, quote=False).replace("%{", "%\u200a{").replace("$", "\uff04")


def transition_figure(findings: Findings) -> go.Figure | None:
    """D(t*) with its interval, each parameter's expected level (as part of its scale), gradient norm and rotation on one step axis."""
    courses = [entry for entry in ranked(findings) if entry.finding.course is not None][:COURSES_SHOWN]
    panels = [name for name, present in _panels(findings, bool(courses)).items() if present]
    if not panels:
        return None
    from plotly.subplots import make_subplots

    titles = {
        "curve": "Change between the windows left and right of a split, D(t*)",
        "courses": "Expected level, as part of its scale",
        "norm": "Gradient norm",
        "rotation": "Rotation of the LoRA adapter: local cosine (\u22121 straight, 0 a right angle)",
    }
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.2 / len(panels), subplot_titles=[titles[name] for name in panels]
    )
    traces = {"curve": _curve_traces, "courses": lambda _: _course_traces(courses), "norm": _norm_traces, "rotation": _rotation_traces}
    for place, name in enumerate(panels, start=1):
        drawn = traces[name](findings)
        figure.add_traces(drawn, rows=[place] * len(drawn), cols=[1] * len(drawn))
        if findings.transition is not None and findings.transition.found and findings.transition.peak.estimate is not None:
            figure.add_vline(
                x=findings.transition.peak.estimate, line={"width": 1, "dash": "dot", "color": RESIDUAL_COLOUR}, row=place, col=1
            )
        figure.update_yaxes(rangemode="normal" if name == "rotation" else "tozero", row=place, col=1)
    figure.update_xaxes(title_text="optimizer step", row=len(panels), col=1)
    _style(figure, height=120 + 200 * len(panels))
    figure.update_layout(hovermode="x unified", legend={"orientation": "h", "y": -0.13, "yanchor": "top", "x": 0})
    return figure


def _panels(findings: Findings, courses: bool) -> dict[str, bool]:
    """The panels of the transition figure from top to bottom, and whether there is something to draw in each."""
    training, rotation = findings.training, findings.rotation
    return {
        "curve": findings.transition is not None,
        "courses": courses,
        "norm": training is not None and any(value is not None for value in training.grad_norm),
        "rotation": rotation is not None and any(value is not None for value in rotation.cosine),
    }


def _curve_traces(findings: Findings) -> list[dict[str, Any]]:
    transition = findings.transition
    if transition is None:
        return []
    splits = list(transition.splits)
    band = _band(splits, transition.low, transition.high)
    return [
        {
            "type": "scatter",
            "x": [x for x, _ in band],
            "y": [y for _, y in band],
            "fill": "toself",
            "fillcolor": _transparent(COLOURS[0]),
            "line": {"width": 0},
            "name": "95% interval of D",
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "x": splits,
            "y": list(transition.curve),
            "mode": "lines",
            "connectgaps": False,
            "line": {"color": COLOURS[0], "width": 2.5},
            "name": "D(t*)",
            "hovertemplate": "D %{y:.3f}<extra></extra>",
        },
    ]


def _band(splits: list[float], low: Sequence[float | None], high: Sequence[float | None]) -> list[tuple[float | None, float | None]]:
    """Corners of the area between two limits; a gap ends one area and begins the next."""
    out: list[tuple[float | None, float | None]] = []
    run: list[tuple[float, float, float]] = []
    for x, bottom, top in [*zip(splits, low, high, strict=True), (0.0, None, None)]:
        if bottom is not None and top is not None:
            run.append((x, bottom, top))
        elif run:
            out += [(None, None)] if out else []
            out += [(at, y) for at, _, y in run] + [(at, y) for at, y, _ in reversed(run)]
            run = []
    return out


def _course_traces(rows: Sequence[Row]) -> list[dict[str, Any]]:
    traces = []
    for index, entry in enumerate(rows):
        course = entry.finding.course
        if course is None:
            continue
        top = max(1, len(entry.finding.parameter.levels) - 1)
        traces.append(
            {
                "type": "scatter",
                "x": list(course.steps),
                "y": [None if value is None else value / top for value in course.estimate],
                "mode": "lines",
                "connectgaps": False,
                "line": {"color": COLOURS[index % len(COLOURS)], "width": 2, "dash": _DASHES[index % len(_DASHES)]},
                "name": f"{entry.rank}. {label(entry.name)}",
                # what was not accepted is a click on its name away
                "visible": True if entry.finding.verdict == "accepted" else "legendonly",
                "hovertemplate": "%{y:.3f}<extra>%{fullData.name}</extra>",
            }
        )
    return traces


def _norm_traces(findings: Findings) -> list[dict[str, Any]]:
    training = findings.training
    if training is None:
        return []
    return [
        {
            "type": "scatter",
            "x": list(training.steps),
            "y": list(training.grad_norm),
            "mode": "lines",
            "connectgaps": False,
            "line": {"color": RESIDUAL_COLOUR, "width": 1.5},
            "name": "gradient norm",
            "hovertemplate": "gradient norm %{y:.3f}<extra></extra>",
        }
    ]


def _rotation_traces(findings: Findings) -> list[dict[str, Any]]:
    rotation = findings.rotation
    if rotation is None:
        return []
    return [
        {
            "type": "scatter",
            "x": list(rotation.steps),
            "y": list(rotation.cosine),
            "mode": "lines",
            "connectgaps": False,
            "line": {"color": COLOURS[3], "width": 2, "dash": "dash"},
            "name": "rotation",
            "hovertemplate": "local cosine %{y:.3f}<extra></extra>",
        }
    ]


def transition_alt(findings: Findings) -> str:
    """What the transition figure shows, in words."""
    parts = []
    transition = findings.transition
    if transition is not None and transition.curve:
        known = [(value, -at) for at, value in zip(transition.splits, transition.curve, strict=True) if value is not None]
        value, at = max(known, default=(None, 0.0))
        highest = "unknown at all of them" if value is None else f"highest at step {step(-at)} with {number(value)}"
        parts.append(
            f"Curve of the change D over {len(transition.splits)} splits "
            f"from step {step(transition.splits[0])} to {step(transition.splits[-1])}, {highest}."
        )
        if 0 < len(known) < len(transition.splits):
            parts.append(f"It is unknown at {len(transition.splits) - len(known)} splits.")
    onsets = [f"{one_line(entry.name, 60)} at step {entry.onset.text}" for entry in ranked(findings) if entry.onset.value is not None]
    if onsets:
        parts.append(f"Onsets: {'; '.join(onsets)}.")
    if transition is not None and transition.grad_norm_peak is not None:
        parts.append(f"The gradient norm peaks at step {step(transition.grad_norm_peak)}.")
    if findings.rotation is not None:
        place = shown(findings.rotation.place, unit=False)
        turned = f"turns most at step {place.line}" if place.value is not None else "turns nowhere"
        parts.append(f"The LoRA adapter {turned}.")
    return " ".join(parts)


def decomposition_figure(findings: Findings) -> go.Figure | None:
    """Two stacked bars of the whole change: Shapley parts and residual; unique parts, what several share, and residual."""
    rows = [entry for entry in ranked(findings) if entry.finding.verdict == "accepted" and entry.finding.shapley is not None]
    if not rows or findings.residual is None or findings.residual.estimate is None:
        return None
    import plotly.graph_objects as go

    figure = go.Figure()
    unique_known = all(entry.unique.value is not None for entry in rows)
    bars = ["fair parts (Shapley)", "unique parts"] if unique_known else ["fair parts (Shapley)"]
    for index, entry in enumerate(rows):
        fair = shown(entry.finding.shapley).value
        values = [fair, entry.unique.value] if unique_known else [fair]
        name = f"{entry.rank}. {label(entry.name)}"
        figure.add_trace(_bar(bars, values, name, COLOURS[index % len(COLOURS)], _PATTERNS[(index // len(COLOURS)) % len(_PATTERNS)]))
    if unique_known and findings.joint is not None and findings.joint.estimate is not None:
        common = findings.joint.estimate - sum(entry.unique.value or 0.0 for entry in rows)
        figure.add_trace(_bar([bars[1]], [common], "explained by more than one", "#F0E442", "/"))
    figure.add_trace(_bar(bars, [findings.residual.estimate] * len(bars), "residual: not explained", "#646b75", ""))
    _style(figure, height=210 + 60 * len(bars) + 12 * len(rows))
    figure.update_layout(
        barmode="relative", bargap=0.35, legend={"orientation": "h", "y": -0.32, "yanchor": "top", "x": 0, "traceorder": "normal"}
    )
    figure.update_xaxes(title_text="share of the total change D")
    figure.update_yaxes(autorange="reversed")
    return figure


def _bar(bars: Sequence[str], values: Sequence[float | None], name: str, colour: str, pattern: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(bars),
        "x": list(values),
        "name": name,
        "text": [number(value, 2) for value in values],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "constraintext": "inside",
        "marker": {
            "color": colour,
            "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "#ffffff", "fgopacity": 0.5},
            "line": {"width": 1, "color": "#ffffff"},
        },
        "hovertemplate": "%{x:.3f}<extra>%{fullData.name}</extra>",
    }


def decomposition_alt(findings: Findings) -> str:
    """What the decomposition bar shows, in words."""
    parts = [
        f"{one_line(entry.name, 60)} {shown(entry.finding.shapley).text}"
        for entry in ranked(findings)
        if entry.finding.verdict == "accepted" and entry.finding.shapley is not None
    ]
    return f"Fair parts of the change: {'; '.join(parts)}; together {joint(findings).text}; residual {residual(findings).text}."


def prompt_figure(findings: Findings) -> go.Figure | None:
    """Heat map: how much of the change at each prompt (row) each order parameter (column) shows."""
    rows, prompts = prompt_columns(findings)
    if not rows or not prompts:
        return None
    import plotly.graph_objects as go

    z = [[entry.finding.prompt_shares.get(prompt) for entry in rows] for prompt in prompts]
    known = [value for line in z for value in line if value is not None]
    low, high = min(0.0, *known), max(0.0, *known)
    names = [(entry, label(entry.name)) for entry in rows]
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=[str(entry.rank) for entry in rows],
            y=[str(place) for place in range(1, len(prompts) + 1)],
            zmin=low,
            zmax=high if high > low else low + 1.0,
            colorscale="Cividis",
            xgap=2,
            ygap=2,
            text=[[number(value, 2) for value in line] for line in z],
            texttemplate="%{text}" if len(rows) <= 12 and len(prompts) <= 60 else None,
            hovertext=[
                [f"{label(findings.prompts.get(prompt, prompt), 80)}<br>{entry.rank}. {name}" for entry, name in names]
                for prompt in prompts
            ],
            hovertemplate="%{hovertext}<br>share %{z:.3f}<extra></extra>",
            colorbar={"title": {"text": "share"}, "thickness": 12},
        )
    )
    _style(figure, height=130 + 26 * len(prompts))
    figure.update_xaxes(title_text="order parameter (rank)", type="category", side="top")
    figure.update_yaxes(title_text="prompt", type="category", autorange="reversed", showgrid=False)
    return figure


def prompt_columns(findings: Findings) -> tuple[list[Row], list[str]]:
    """Rows (order parameters) and prompts of the heat map: accepted ones, or all that have prompt shares when none is accepted.

    Of more than `PROMPTS_SHOWN` prompts those with the largest shares are drawn, in their order.
    """
    every = [entry for entry in ranked(findings) if entry.finding.prompt_shares]
    rows = [entry for entry in every if entry.finding.verdict == "accepted"] or every
    prompts = list(dict.fromkeys(itertools.chain.from_iterable(entry.finding.prompt_shares for entry in rows)))
    if len(prompts) > PROMPTS_SHOWN:
        size = {prompt: sum(abs(entry.finding.prompt_shares.get(prompt, 0.0)) for entry in rows) for prompt in prompts}
        largest = set(sorted(prompts, key=lambda prompt: -size[prompt])[:PROMPTS_SHOWN])
        prompts = [prompt for prompt in prompts if prompt in largest]
    return rows, prompts


def prompt_alt(findings: Findings) -> str:
    """What the heat map shows, in words."""
    rows, prompts = prompt_columns(findings)
    parts = []
    for entry in rows:
        shares = entry.finding.prompt_shares
        low, high = min(shares, key=lambda key: shares[key]), max(shares, key=lambda key: shares[key])
        parts.append(f"{one_line(entry.name, 60)} from {number(shares[low], 2)} to {number(shares[high], 2)}")
    every = len(set(itertools.chain.from_iterable(entry.finding.prompt_shares for entry in rows)))
    drawn = f" ({len(prompts)} with the largest shares are drawn)" if every > len(prompts) else ""
    return f"Share of each order parameter at each of {every} prompts{drawn}: {'; '.join(parts)}."


def _transparent(colour: str, opacity: float = 0.22) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _style(figure: go.Figure, height: int) -> None:
    """Light defaults for notebooks; in the report the page's script takes background and text colours from the page."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 58, "r": 16, "t": 36, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    figure.update_xaxes(gridcolor="#d9dce0", zerolinecolor="#9aa0a6", automargin=True)
    figure.update_yaxes(gridcolor="#d9dce0", zerolinecolor="#9aa0a6", automargin=True)
    figure.update_annotations(font={"size": 13}, x=0, xanchor="left")
