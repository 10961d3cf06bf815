"""A crystallization as a terminal table, JSON and one self-contained page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.report.figures import COLOURS, label
from agent.report.shown import MISSING
from agent.report.visible import one_line

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from rich.console import RenderableType

    from probes.crystal_results import Crystallization, StageMeasure
    from probes.crystal_seed import Seed
    from probes.resampling import Interval

FORMAT = "order-parameter-crystallization"
VERSION = 1
MIN_TASKS = 6
"""A mean over fewer tasks says nothing about tasks in general."""
COLUMNS = ("task", "stage", "label", "H/log|O|", "options", "variety", "distinct", "mode", "outside", "p", "seed")
SYMBOLS = {"liquid": "circle", "nucleation": "diamond", "settling": "square", "undecided": "circle-open"}
LEGEND = (
    "H/log|O|: mean entropy of a phrasing's answers as part of the largest possible. options: how many options a phrasing has in use. "
    "variety: how many all phrasings together reach. distinct: effective number of distinct distributions (clusters). "
    "p: of the fall of all three since the stage before, adjusted for all tasks and transitions. seed: options on top of the nearest "
    "earlier distribution, its Jensen-Shannon distance and its p against permuted options. Intervals: 95%, over phrasings. "
    "In the figure: filled circle liquid, diamond nucleation, square settling, open circle undecided."
)


def as_json(found: Sequence[Crystallization], source: str, notes: Sequence[str]) -> str:
    """Everything measured, for programs; what is not known is null."""
    from probes.crystallization import over_subjects

    content = {
        "format": FORMAT,
        "version": VERSION,
        "source": source,
        "notes": list(notes),
        "subjects": [asdict(each) for each in found],
        "across_subjects": [asdict(each) for each in over_subjects(found)],
    }
    return json.dumps(_known(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _known(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_known(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows(found: Crystallization) -> Iterator[tuple[str, ...]]:
    """One row per task and stage, cells as in `COLUMNS`."""
    for measure in found.measures:
        into = next((t for t in found.transitions if (t.task, t.after) == (measure.task, measure.stage)), None)
        yield (
            one_line(measure.task, 30),
            one_line(measure.stage, 30),
            measure.label,
            interval_text(measure.entropy, 2),
            f"{measure.options.estimate:.1f} of {len(found.options[measure.task])}",
            f"{measure.variety.estimate:.1f}",
            f"{measure.distinct:.1f} ({measure.n_clusters})",
            f"{one_line(measure.mode, 20)} {max(measure.distribution):.2f}",
            f"{measure.outside:.2f}",
            MISSING if into is None else p_text(into.p_adjusted),
            MISSING if into is None or into.seed is None else _seed_text(into.seed),
        )


def _seed_text(seed: Seed) -> str:
    top = ", ".join(one_line(name, 15) for name in seed.top[:4]) + (", …" if len(seed.top) > 4 else "")
    return f"{top} ({seed.distance:.2f}, p {p_text(seed.p)})"


def interval_text(interval: Interval, digits: int) -> str:
    """`0.58 [0.48, 0.68]`, without limits where there are none."""
    limits = f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if math.isfinite(interval.low) else ""
    return f"{interval.estimate:.{digits}f}{limits}"


def p_text(p: float) -> str:
    """`.013`, or `<.001`."""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def sentences(found: Crystallization) -> list[str]:
    """What was found, in words."""
    said = []
    for kind in ("nucleation", "settling"):
        calls = [(task, stage) for task, stage, called in found.calls if called == kind]
        for stage in dict.fromkeys(stage for _, stage in calls):
            tasks = [task for task, at in calls if at == stage]
            asked = sum(measure.stage == stage for measure in found.measures)
            said.append(f"{one_line(stage, 30)}: {kind} of {len(tasks)} of {asked} tasks ({', '.join(one_line(t, 30) for t in tasks)}).")
    if not said:
        said.append(f"No nucleation and no settling at level {found.alpha}.")
    for name, drop in found.overall.items():
        if drop.n_groups >= MIN_TASKS and math.isfinite(drop.low):
            said.append(f"{one_line(name, 60)}: H/log|O| falls by {interval_text(drop, 2)} on average over {drop.n_groups} tasks.")
    return said


def across_sentences(found: Sequence[Crystallization]) -> list[str]:
    """What several subjects have in common, one sentence a task and transition."""
    from probes.crystallization import over_subjects

    said = []
    for each in over_subjects(found):
        word = "consistent" if each.consistent else "no consistent"
        said.append(
            f"{one_line(each.task, 30)}, {one_line(each.before, 30)} -> {one_line(each.after, 30)}: {word} nucleation, "
            f"called in {each.n_called} of {each.n_subjects} subjects; H/log|O| falls by {interval_text(each.entropy, 2)}, "
            f"variety/|O| by {interval_text(each.variety, 2)} (over subjects)."
        )
    return said


def terminal(found: Crystallization) -> RenderableType:
    """The table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(one_line(found.subject, 80)), box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, title_justify="left")
    for name in COLUMNS:
        table.add_column(name, no_wrap=name in ("stage", "label"), overflow="fold")
    styles = {"nucleation": "bold red", "settling": "bold magenta", "liquid": "cyan"}
    before = ""
    for row in rows(found):
        table.add_row("" if row[0] == before else Text(row[0]), Text(row[1]), Text(row[2], styles.get(row[2], "dim")), *map(Text, row[3:]))
        before = row[0]
    return table


def plain(found: Crystallization) -> str:
    """The table for a pipe: one line per row, cells separated by tabs."""
    return "\n".join("\t".join(row) for row in [("subject", *COLUMNS), *((one_line(found.subject, 80), *row) for row in rows(found))])


def figure(found: Sequence[Crystallization]) -> go.Figure:
    """Per subject two panels: H/log|O| and variety/|O| of every task at every stage, with intervals; the symbol is the label."""
    from plotly.subplots import make_subplots

    height = max(len(each.options) for each in found)
    drawn = make_subplots(
        rows=len(found),
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=min(0.06, 0.3 / len(found)),
        subplot_titles=[title for each in found for title in (f"{label(each.subject, 50)}: H/log|O|", "variety / |O|")],
    )
    named: set[str] = set()
    for row, each in enumerate(found, start=1):
        for place, stage in enumerate(each.stages):
            for column, trace in enumerate(_traces(each, place, stage), start=1):
                trace["showlegend"] = column == 1 and stage not in named
                drawn.add_trace(trace, row=row, col=column)
            named.add(stage)
    drawn.update_xaxes(range=[-0.05, 1.1])
    drawn.update_yaxes(autorange="reversed")
    drawn.update_layout(
        template="plotly_white",
        height=160 + len(found) * (60 + 30 * height),
        margin={"l": 120, "r": 20, "t": 60, "b": 40},
        legend={"orientation": "h"},
    )
    return drawn


def _traces(found: Crystallization, place: int, stage: str) -> Iterator[dict[str, Any]]:
    measures = [measure for measure in found.measures if measure.stage == stage]
    for name, unit in (("entropy", False), ("variety", True)):
        values = [_scaled(getattr(m, name), len(found.options[m.task]) if unit else 1) for m in measures]
        yield {
            "type": "scatter",
            "mode": "markers",
            "x": [value for value, _ in values],
            "y": [label(measure.task) for measure in measures],
            "error_x": {"type": "data", "array": [half for _, half in values], "thickness": 1.2, "width": 3},
            "marker": {"color": COLOURS[place % len(COLOURS)], "size": 11, "symbol": [SYMBOLS[m.label] for m in measures]},
            "name": label(stage),
            "legendgroup": label(stage),
            "text": [_hover(measure) for measure in measures],
            "hovertemplate": "%{y}, %{fullData.name}: %{x:.2f}<br>%{text}<extra></extra>",
        }


def _scaled(interval: Interval, unit: int) -> tuple[float, float]:
    half = (interval.high - interval.estimate) / unit
    return interval.estimate / unit, half if math.isfinite(half) else 0.0


def _hover(measure: StageMeasure) -> str:
    mode = f"mode {label(measure.mode)} {max(measure.distribution):.2f}, outside {measure.outside:.2f}"
    return f"{measure.label}: {label(measure.reason, 120)}<br>{mode}"


def page(found: Sequence[Crystallization], source: str, notes: Sequence[str]) -> str:
    """One HTML page that opens offline: sentences, figure, tables, notes. Everything from the run is escaped."""
    drawn = figure(found).to_html(full_html=False, include_plotlyjs="inline", config={"displaylogo": False})
    parts = []
    for each in found:
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences(each))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows(each))
        parts.append(
            f"<h2>{html.escape(one_line(each.subject, 80))}</h2><ul>{said}</ul><table><thead><tr>{head}</tr></thead>{body}</table>"
        )
    if across := across_sentences(found):
        parts.insert(0, "<h2>Over subjects</h2><ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in across) + "</ul>")
    remarks = "".join(f"<li>{html.escape(one_line(note, 600))}</li>" for note in notes)
    return _PAGE.format(
        source=html.escape(one_line(source, 200)), figure=drawn, parts="".join(parts), notes=remarks, legend=html.escape(LEGEND)
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Crystallization</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }}
table {{ border-collapse: collapse; font-size: 13px; }}
td, th {{ padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #e3e6ea; }}
.legend {{ color: #57606a; font-size: 13px; }}
</style></head><body>
<h1>Crystallization of random choices</h1>
<p>{source}</p>
{figure}
{parts}
<p class="legend">{legend}</p><ul class="legend">{notes}</ul>
</body></html>
"""
