"""The findings in a terminal: sentences, ranked table, totals and cautions; plain text for pipes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.records import Findings
from agent.report.ranking import (
    Row,
    contrast_text,
    flagged,
    further_text,
    joint,
    lag_text,
    missed_text,
    ranked,
    residual,
    row,
    total_text,
    undetectable_text,
)
from agent.report.reliability import terminal_line
from agent.report.shown import NAME_LIMIT, Shown
from agent.report.visible import one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

PLAIN_WIDTH = 120
TABLE_WIDTH = 112
REJECTED_SHOWN = 8
_STYLES = {"accepted": "bold", "vetoed": "dim", "rejected": "dim", "not tested": "dim"}


def table(findings: Findings) -> RenderableType:
    """The findings as a rich renderable: a table from 112 columns on, a list on narrower terminals."""
    return TerminalReport(findings)


def plain(findings: Findings, width: int = PLAIN_WIDTH) -> str:
    """The same as text without colours and escapes, for pipes and logs."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False, highlight=False, emoji=False)
    console.print(table(findings))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


@dataclass(frozen=True)
class TerminalReport:
    """What `table` returns; untrusted text reaches the terminal as `rich.text.Text` with its control characters made visible."""

    findings: Findings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Sentences on top, then the table or list, the totals, and the cautions below."""
        from rich.text import Text

        findings = self.findings
        for sentence in findings.sentences:
            yield Text(one_line(sentence, 600), style="bold")
        if findings.sentences:
            yield Text("")
        absent = undetectable_text(findings)
        if absent:
            yield Text(absent, style="bold yellow")
            yield Text("")
        rows, hidden = _rows_shown(findings)
        if rows or findings.length:
            if options.max_width >= TABLE_WIDTH:
                yield _ranked_table(findings, rows)
            else:
                yield from _ranked_list(findings, rows)
        if hidden:
            yield Text(f"{hidden} more were tried and not accepted: they are in report.html and findings.json.", style="dim")
        yield from _totals(findings)
        yield from _cautions(findings)


def _rows_shown(findings: Findings) -> tuple[list[Row], int]:
    """Every accepted row and the first few others, with the number left out."""
    rows = ranked(findings)
    accepted = [entry for entry in rows if entry.finding.verdict == "accepted"]
    others = [entry for entry in rows if entry.finding.verdict != "accepted"]
    return accepted + others[:REJECTED_SHOWN], max(0, len(others) - REJECTED_SHOWN)


def _ranked_table(findings: Findings, rows: list[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("", justify="right")
    grid.add_column("order parameter", min_width=20, overflow="fold")
    for heading in ("share of D", "D[O]", "unique", "beyond length"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("onset", justify="right", no_wrap=True)
    grid.add_column("verdict", no_wrap=True, min_width=10)
    for entry in rows:
        style = _STYLES[entry.finding.verdict]
        grid.add_row(
            Text(str(entry.rank)),
            Text(f"{one_line(entry.name, NAME_LIMIT)} [{entry.finding.parameter.badge}]", style=style),
            *(_cell(cell) for cell in (entry.share, entry.change, entry.unique, entry.beyond_length, entry.onset)),
            Text(entry.finding.verdict, style=style),
        )
    grid.add_section()
    if findings.length:
        entry = row(findings.length)
        grid.add_row(
            Text(""), Text("length alone (no discovery)"), _cell(entry.share), _cell(entry.change), "", "", _cell(entry.onset), Text("")
        )
    if findings.detectable:
        if findings.joint:
            grid.add_row(Text(""), Text("all accepted together"), _cell(joint(findings)), "", "", "", "", "")
        grid.add_row(Text(""), Text("residual: not explained yet", style="bold"), _cell(residual(findings)), "", "", "", "", "")
    return grid


def _cell(cell: Shown) -> RenderableType:
    from rich.text import Text

    lines = f"{cell.text}{'!' if cell.flag else ''}"
    return Text(f"{lines}\n{cell.interval}" if cell.interval else lines)


def _ranked_list(findings: Findings, rows: list[Row]) -> RenderResult:
    """The table for narrow terminals: a few short lines per order parameter."""
    from rich.padding import Padding
    from rich.text import Text

    for entry in rows:
        badge = entry.finding.parameter.badge
        yield Text(
            f"{entry.rank}. {one_line(entry.name, NAME_LIMIT)} [{badge}] {entry.finding.verdict}", style=_STYLES[entry.finding.verdict]
        )
        yield Padding(Text(_line(entry)), (0, 0, 0, 3))
    if findings.length:
        yield Text("length alone (no discovery)")
        yield Padding(Text(_line(row(findings.length))), (0, 0, 0, 3))
    if findings.detectable:
        if findings.joint:
            yield Text(f"all accepted together: share {joint(findings).line}")
        yield Text(f"residual, not explained yet: {residual(findings).line}", style="bold")


def _line(entry: Row) -> str:
    cells = (
        ("share", entry.share),
        ("D[O]", entry.change),
        ("unique", entry.unique),
        ("beyond length", entry.beyond_length),
        ("onset", entry.onset),
    )
    return "; ".join(f"{name} {cell.line}" for name, cell in cells if cell.value is not None)


def _totals(findings: Findings) -> RenderResult:
    from rich.text import Text

    yield Text.assemble(("Total change  ", "bold"), one_line(total_text(findings), 600))
    yield Text.assemble(("Contrast      ", "bold"), one_line(contrast_text(findings.contrast), 600))
    if further_text(findings):
        yield Text.assemble(("Transitions   ", "bold"), further_text(findings))
    lag = lag_text(findings)
    if lag:
        yield Text.assemble(("Timing        ", "bold"), lag)
    if findings.detectable and missed_text(findings):
        yield Text.assemble(("Resolution    ", "bold"), missed_text(findings))
    if terminal_line(findings):
        yield Text.assemble(("Judge         ", "bold"), terminal_line(findings))
    yield Text.assemble(("Rounds        ", "bold"), f"{findings.rounds}; stopped: {one_line(findings.stopped)}")
    if flagged(findings):
        yield Text("! lies outside 0 to 1: printed as estimated, never clipped.")


def _cautions(findings: Findings) -> RenderResult:
    from rich.padding import Padding
    from rich.text import Text

    if not findings.cautions:
        return
    yield Text("")
    yield Text("What would make these numbers wrong", style="bold")
    for caution in findings.cautions:
        yield Padding(Text(f"- {one_line(caution, 600)}"), (0, 0, 0, 0))
