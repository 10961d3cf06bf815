"""`discover timeline`: mechanism and behaviour of a run on one axis."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.command_answer import give_answer
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.records import RepeatedRecord, Timeline

EXAMPLES = """
\b
Examples:
  discover timeline runs/organism
  discover timeline runs/organism --out figures --k 2,5,10
  discover timeline runs/seed-0/adapters --with runs/seed-1 --json
  discover timeline runs/a --again runs/b --again runs/c --again runs/d
"""


def timeline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A discovery's folder, a run directory, or a folder of adapters.")],
    k: Annotated[str | None, typer.Option("--k", metavar="2,5,…", help="Leg lengths of the local cosine, in checkpoints.")] = None,
    others: Annotated[list[Path] | None, typer.Option("--with", metavar="RUN", help="Comp score with this run's last adapter.")] = None,
    again: Annotated[
        list[Path] | None, typer.Option("--again", metavar="RUN", help="The same training, same start, other documents (3 or more).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write timeline.json and timeline.html there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Put gradient norm, rotation of the adapter, D(t) and the onset of every order parameter on one axis, with what came first."""
    found = _made(run, _lengths(k), others or [], again or [])
    text = found.model_dump_json(indent=1) + "\n"
    give_answer(
        "timeline", text, lambda: page(found), lambda: typer.echo("".join(f"{line}\n" for line in lines(found)), nl=False), out, as_json
    )


def _lengths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"expected --k as whole numbers from 1, such as 2,5,10, found {text!r}")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _made(run: Path, ks: tuple[int, ...] | None, others: list[Path], again: list[Path]) -> Timeline:
    from agent.mechanism import comp_scores, mechanism_record, repeated_record
    from agent.report import read_findings
    from agent.report.findings_file import FILE_NAME
    from agent.report.timeline_figure import timeline_of
    from agent.timeline import timeline_without_findings, with_repeats

    if not run.is_dir():
        raise ConfigError(f"timeline {run}: expected a folder, found {'a file' if run.exists() else 'nothing'}")
    if (run / FILE_NAME).is_file():
        findings = read_findings(run)
        found = timeline_of(findings, mechanism_record(findings.run, ks))
        if found.mechanism is None and findings.rotation is not None:
            found = found.model_copy(
                update={"notes": (f"The adapters are not at {findings.run} any more: their trajectory is not shown.",)}
            )
    else:
        found = timeline_without_findings(run, ks)
    if again:
        adapters = Path(found.source) if (run / FILE_NAME).is_file() else run
        found = with_repeats(found, repeated_record([adapters, *again], ks))
    if not others:
        return found
    scores = comp_scores([run, *others])
    return found.model_copy(update={"comp": {f"{first} | {second}": modules for (first, second), modules in scores.items()}})


def lines(found: Timeline) -> list[str]:
    """The timeline for a terminal: places in order, then what came before what, then the trajectory."""
    from agent.report.shown import step
    from agent.report.timeline_figure import place_text
    from agent.report.visible import one_line

    out = [f"{event.kind:<10} step {place_text(event):<18} {one_line(event.name, 90)}" for event in found.events]
    out = out or ["Nothing on this run has a place on the step axis."]
    for pair in found.order:
        lag = pair.lag
        limits = "" if lag.low is None or lag.high is None else f" [{step(lag.low)}, {step(lag.high)}]"
        word = "before" if pair.settled else "perhaps before"
        out.append(f"{one_line(pair.first, 50)} {word} {one_line(pair.second, 50)}: {step(lag.estimate)}{limits} steps")
    if found.mechanism is not None:
        moved = found.mechanism
        parts = ", ".join(f"{part:.0%}" for part in moved.explained)
        out.append(
            f"Adapter: {len(moved.modules)} module(s), |B| {moved.norms[0]:.3g} -> {moved.norms[-1]:.3g}; PCA {parts} ({moved.warning})"
        )
        if moved.rotation is None:
            out.append("The adapter turns nowhere that stands out.")
        else:
            out.append("The rotation's limits are its range over leg lengths and thresholds: one run has no sampling error.")
            if found.repeated is None:
                out.append("One run cannot tell a turn from a stop that leaves the optimizer's noise: --again RUN (3 or more) can.")
    if found.repeated is not None:
        out.append(_repeats(found.repeated))
    for pair_name, modules in found.comp.items():
        for module, score in modules.items():
            out.append(f"comp {score:.2f}  {one_line(pair_name, 120)}  {one_line(module, 60)}")
    return [*out, *(f"Note: {one_line(note, 300)}" for note in found.notes)]


def _repeats(found: RepeatedRecord) -> str:
    n, place, prominence = len(found.runs), found.rotation, found.prominence
    if place is None or place.estimate is None or prominence is None or prominence.estimate is None:
        return f"The mean path of {n} runs turns nowhere significantly."
    cosine = found.cosine[found.steps.index(int(place.estimate))]
    return (
        f"The mean path of {n} runs, free of the optimizer's noise, turns at local cosine {cosine:.2f}, {prominence.estimate:.2f} above "
        "where it is straighter on both sides; the limits of its place are a 95% interval over runs."
    )


def page(found: Timeline) -> str:
    """One HTML page that opens offline: figure and lines; everything from the run is escaped."""
    from agent.report.timeline_figure import timeline_figure
    from agent.report.visible import one_line

    figure = timeline_figure(found)
    drawn = "" if figure is None else figure.to_html(full_html=False, include_plotlyjs="inline", config={"displaylogo": False})
    said = "".join(f"<li>{html.escape(line)}</li>" for line in lines(found))
    return _PAGE.format(source=html.escape(one_line(found.source, 200)), figure=drawn, lines=said)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Timeline</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }}</style>
</head><body>
<h1>Mechanism and behaviour on one axis</h1>
<p>{source}</p>
{figure}
<ul>{lines}</ul>
</body></html>
"""
