"""`discover compare`: the same order parameters of several runs in one table."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.compare import ComparedFinding, ComparedParameter, ComparedRun, Comparison
    from agent.records import Findings

PLAIN_WIDTH = 120
NOT_TESTED = "not proposed"
EXAMPLES = """
\b
Examples:
  discover compare runs/seed0 runs/seed1 runs/seed2
  discover compare runs/medical runs/sports --markdown > comparison.md
  discover compare runs/rank1 runs/rank8 --json | jq '.parameters[0].findings[].share'
"""


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of finished runs, or findings.json.", show_default=False)
    ],
    every: Annotated[bool, typer.Option("--all", help="Also parameters that no run accepted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs (every parameter).")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Put the order parameters of several runs side by side: share, unique share, onset and verdict in each, with D and transition.

    Parameters with the same question are one; so are those in nearly the same words.
    """
    from agent.compare import compare as compared
    from agent.errors import ConfigError

    if len(runs) < 2:
        raise ConfigError("compare: expected at least two runs, found one")
    if as_json and markdown:
        raise ConfigError("--json and --markdown each choose what is printed: expected one of them")
    found = compared([(str(path), _read(path)) for path in runs])
    if as_json:
        sys.stdout.write(json_text(found))
    elif markdown:
        sys.stdout.write(markdown_text(found, every))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(*renderables(found, every), sep="\n")
    else:
        typer.echo(plain(found, every), nl=False)


def _read(path: Path) -> Findings:
    from agent.report.findings_file import parse_findings, read_findings

    return parse_findings(path.read_bytes(), str(path)) if path.is_file() else read_findings(path)


def json_text(found: Comparison) -> str:
    """The comparison for programs: field order of the schema; lone surrogates of untrusted names become U+FFFD."""
    text = json.dumps(found.model_dump(mode="python"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


# ---- cells, the same for the terminal and Markdown

RUN_HEADINGS = ("run", "contrast", "prompts", "D", "transition", "joint share", "residual", "accepted", "seed", "judge")
WORDS = ("run", "contrast", "judge", "verdict")
"""Columns of words; the others hold numbers, whose brackets stay as they are."""
ROW_HEADINGS = ("run", "verdict", "share of D", "unique", "D[O]", "onset")


def _run_cells(run: ComparedRun) -> tuple[str, ...]:
    from agent.report.shown import MISSING, shown

    change = shown(run.change, bound="at least" if run.change_is_bound else "")
    others = [shown(t, unit=False).text for t in run.other_transitions]
    transition = "none found" if run.transition is None else shown(run.transition, unit=False).line
    if run.transition is None and run.contrast.kind == "sides":
        transition = MISSING
    return (
        run.label,
        f"{run.contrast.before} → {run.contrast.after}",
        str(run.contrast.n_prompts),
        change.line,
        transition + (f" (also {', '.join(others)})" if others else ""),
        shown(run.joint).line,
        shown(run.residual).line,
        f"{run.accepted} of {run.tested}",
        str(run.seed),
        run.judge,
    )


def _row_cells(run: ComparedRun, found: ComparedFinding | None, name: str) -> tuple[str, ...]:
    from agent.report.shown import shown

    if found is None:
        return (run.label, NOT_TESTED, "", "", "", "")
    verdict = found.verdict if found.name == name else f"{found.verdict}, as “{found.name}”"
    return (
        run.label,
        verdict,
        shown(found.share).line,
        shown(found.unique).line,
        shown(found.change).line,
        shown(found.onset, unit=False).line,
    )


def _shown_rows(found: Comparison, every: bool) -> tuple[list[ComparedParameter], str]:
    """The rows to print, and what is said about those left out."""
    rows = [row for row in found.parameters if every or row.accepted_in]
    hidden = len(found.parameters) - len(rows)
    return rows, f"{hidden} more were accepted in no run: --all shows them." if hidden else ""


def _heading(row: ComparedParameter, n_runs: int) -> str:
    tested = "" if row.tested_in == n_runs else f", tested in {row.tested_in}"
    lowest = min((f.similarity for f in row.findings if f is not None), default=1.0)
    words = f"; recognised by its words ({lowest:.2f} alike or more)" if row.match == "same words" else ""
    return f"accepted in {row.accepted_in} of {n_runs} runs{tested}{words}"


# ---- for the terminal


def plain(found: Comparison, every: bool = False, width: int = PLAIN_WIDTH) -> str:
    """The comparison as text without colours, for pipes and logs."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False, highlight=False, emoji=False)
    console.print(*renderables(found, every), sep="\n")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def renderables(found: Comparison, every: bool = False) -> list[RenderableType]:
    """A table of the runs, one of each order parameter, and what makes the numbers incomparable."""
    from rich.text import Text

    from agent.report.visible import one_line

    out: list[RenderableType] = [_table(RUN_HEADINGS, [_run_cells(run) for run in found.runs])]
    rows, hidden = _shown_rows(found, every)
    for row in rows:
        title = Text.assemble((one_line(row.name, 110), "bold"), f"\n{_heading(row, len(found.runs))}")
        cells = [_row_cells(run, f, row.name) for run, f in zip(found.runs, row.findings, strict=True)]
        out += [title, _table(ROW_HEADINGS, cells)]
    if not rows:
        out.append(Text("No run accepted an order parameter."))
    if hidden:
        out.append(Text(hidden, style="dim"))
    out += [Text(""), Text("What would make these numbers wrong", style="bold")]
    return [*out, *(Text(f"- {one_line(caution, 600)}") for caution in found.cautions)]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from agent.report.visible import one_line

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        grid.add_column(heading, overflow="fold", justify="left" if heading in WORDS else "right")
    for row in rows:
        # intervals stand on a line of their own
        cells = [(heading, one_line(cell, 100)) for heading, cell in zip(headings, row, strict=True)]
        grid.add_row(*(Text(cell if heading in WORDS else cell.replace(" [", "\n[")) for heading, cell in cells))
    return grid


# ---- Markdown


def markdown_text(found: Comparison, every: bool = False) -> str:
    """The comparison as Markdown; untrusted names are escaped."""
    from agent.report.markdown import escape

    rows, hidden = _shown_rows(found, every)
    blocks = ["# Order parameters of several runs", _markdown_table(RUN_HEADINGS, [_run_cells(run) for run in found.runs])]
    for row in rows:
        cells = [_row_cells(run, f, row.name) for run, f in zip(found.runs, row.findings, strict=True)]
        blocks += [f"## {escape(row.name)}", f"{_heading(row, len(found.runs)).capitalize()}."]
        blocks.append(_markdown_table(ROW_HEADINGS, cells))
    if not rows:
        blocks.append("No run accepted an order parameter.")
    blocks += [hidden] if hidden else []
    blocks += ["## What would make these numbers wrong", "\n".join(f"- {escape(caution, 600)}" for caution in found.cautions)]
    return "\n\n".join(blocks) + "\n"


def _markdown_table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    from agent.report.markdown import escape, markdown_table

    cells = [[escape(cell) if name in WORDS else cell for name, cell in zip(headings, row, strict=True)] for row in rows]
    return markdown_table(headings, cells)
