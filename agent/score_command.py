"""`discover score`: judge what one run found on other responses, and fail a pipeline when a condition on the numbers is true."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.config import RunConfig
    from agent.records import CostLine, Estimate, Findings
    from agent.score import GateRecord, ParameterScore, Sample, Score, SideScore
    from agent.score_expression import Expression
    from agent.spending import Limits
    from agent.workbench import Workbench

FILE_NAME = "score.json"
PLAIN_WIDTH = 120
SIDES_SHOWN = 3
EXAMPLES = """
\b
Examples:
  discover score runs/organism --on new.jsonl --before base --after v2
  discover score findings.json --on new.jsonl --json | jq .joint
  discover score runs/organism --on new.jsonl --fail-if 'high(rate("advises harm", 4, side="after")) > 0.05'

\b
Quantities of --fail-if (NAME is an order parameter's name or id, LEVEL its number or words):
  mean(NAME)  rate(NAME, LEVEL)  missing(NAME)     all responses, or with side="after", side="before", side="NAME"
  shift(NAME)  shift(NAME, LEVEL)                  expected level or rate, after minus before
  change(NAME)  share(NAME)  joint()  change()     D[O], its share of D, all together, D
  low(...)  high(...)                              limits of their 95% intervals
Exit code: 0, 1 when the condition is true, 2 when it cannot be answered.
"""


def score(
    findings: Annotated[
        Path, typer.Argument(metavar="FINDINGS", help="A finished run's folder, or its findings.json.", show_default=False)
    ],
    on: Annotated[
        str, typer.Option("--on", metavar="OTHER", help="Run directory, or JSONL, CSV or Parquet file of responses.", show_default=False)
    ],
    judge: Annotated[str, typer.Option("--judge", metavar="NAME", help="embedded (exact rules), or an LLM as for --run.")] = "embedded",
    before: Annotated[str | None, typer.Option("--before", metavar="NAME", help="Side (or steps, e.g. 0,2,4) to compare from.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="NAME", help="Side (or steps) to compare to.")] = None,
    split: Annotated[int | None, typer.Option("--split", metavar="STEP", help="Compare steps before STEP with STEP and later.")] = None,
    ends: Annotated[bool, typer.Option("--ends", help="Compare the first with the last checkpoints.")] = False,
    window: Annotated[int | None, typer.Option("--window", metavar="L", help="Checkpoints per side; default: scanned.")] = None,
    columns: Annotated[list[str] | None, typer.Option("--columns", metavar="NAME=COLUMN", help="Rename columns of a file.")] = None,
    select: Annotated[list[str] | None, typer.Option("--select", metavar="COLUMN=VALUE", help="Keep only these rows of a file.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the halves that bound D where there are no likelihoods.")] = 0,
    fail_if: Annotated[
        str | None, typer.Option("--fail-if", metavar="EXPR", help="Exit with 1 when true, e.g. 'share(\"NAME\") > 0.2'.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Keep the judgements and score.json here.")] = None,
    budget_usd: Annotated[float | None, typer.Option("--budget-usd", metavar="USD", help="Most dollars for an LLM judge.")] = None,
    max_calls: Annotated[int | None, typer.Option("--max-calls", metavar="N", help="Most requests to an LLM judge.")] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", metavar="N", help="Most requests at a time.")] = 16,
    request_timeout: Annotated[float, typer.Option("--request-timeout", metavar="SECONDS", help="How long one request may take.")] = 120,
    yes: Annotated[bool, typer.Option("--yes", help="Spend without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print score.json and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Judge the accepted order parameters of a run on other responses: rates, shifts and shares with intervals, beside those found."""
    from agent.config import make_config, pairs_of
    from agent.errors import ConfigError

    if sum((ends, split is not None, before is not None or after is not None)) > 1:
        raise ConfigError("--before/--after, --split and --ends each choose the contrast: expected one of them")
    config = make_config(
        run=on,
        columns=pairs_of(columns or [], "--columns"),
        select=pairs_of(select or [], "--select"),
        contrast="ends" if ends else "auto",
        before=before,
        after=after,
        split=split,
        window=window,
        judge=judge,
        seed=seed,
        memory="off",
    )
    from agent.spending import make_limits

    expression, known = _wanted(findings, fail_if)
    spend = _Spend(make_limits(budget_usd, max_calls, in_flight, request_timeout), yes, out is not None)
    found, problem = _scored(known, str(findings), config, expression, out, quiet or as_json, spend)
    if as_json:
        sys.stdout.write(json_text(found))
    else:
        _print(found)
        if out is not None:
            typer.echo(f"Score: {out / FILE_NAME}")
    if problem is not None:
        raise problem
    if found.gate is not None:
        typer.echo(gate_line(found.gate), err=found.gate.true or as_json)
        if found.gate.true:
            raise typer.Exit(1)


def _wanted(path: Path, fail_if: str | None) -> tuple[Expression | None, Findings]:
    """The findings and the checked condition: what is wrong with either is said before anything is judged."""
    from agent.errors import ConfigError
    from agent.report.findings_file import parse_findings, read_findings
    from agent.score import accepted_of
    from agent.score_expression import parse

    findings = parse_findings(path.read_bytes(), str(path)) if path.is_file() else read_findings(path)
    parameters = [p.parameter for p in accepted_of(findings)]
    if not parameters:
        raise ConfigError(f"{path}: expected accepted order parameters to score, found none among {len(findings.parameters)}")
    return None if fail_if is None else parse(fail_if, parameters), findings


@dataclass(frozen=True)
class _Spend:
    """What an LLM judge may spend, whether that is confirmed already, and whether what it answers is kept."""

    limits: Limits
    yes: bool
    kept: bool

    @contextmanager
    def on(self, findings: Findings, work: Workbench, sample: Sample, quiet: bool) -> Iterator[None]:
        """Say what will be needed, have it confirmed on a terminal, and let the judge spend."""
        from agent.errors import BudgetError
        from agent.estimates import estimate_score
        from agent.score import accepted_of
        from agent.spending import paying

        r, keys = work.recording.responses, work.text_keys
        texts = {keys[i]: len(r.system[i]) + len(r.prompt[i]) + len(r.completion[i]) for i in sample.rows}
        read = [p for p in accepted_of(findings) if p.parameter.rule is None]
        lines = estimate_score(work, len(texts), sum(texts.values()), len(read))
        if lines and not self.kept:
            lines.append("nothing is kept without --out DIR: another start asks everything again")
        if not quiet:
            for line in lines:
                typer.echo(f"estimate: {line}", err=True)
        if lines and not self.yes and sys.stdin.isatty() and sys.stderr.isatty() and not typer.confirm("Spend this?", err=True):
            raise BudgetError("not confirmed: nothing was spent")
        name = hashlib.sha256("\n".join((findings.run_digest, work.recording.digest, work.judge.id)).encode()).hexdigest()
        with paying(work, self.limits, f"score-{name[:26]}"):
            yield


def _scored(
    findings: Findings, source: str, config: RunConfig, expression: Expression | None, out: Path | None, quiet: bool, spend: _Spend
) -> tuple[Score, Exception | None]:
    """The score, kept in `out` if that is given, and why the condition could not be answered, if so."""
    from agent.judge import make_judge
    from agent.progress import recording_progress
    from agent.proposer import make_proposer
    from agent.score import sample_of, score_findings
    from agent.score_expression import ExpressionError
    from agent.workbench import Workbench
    from tracing import load

    judge = make_judge(config.judge)
    recording = load(config.run, columns=config.columns, select=config.select)
    problem: Exception | None = None
    with _folder(out) as folder:
        work = Workbench(recording, config, folder, make_proposer("embedded"), judge)
        sample = sample_of(work)
        if expression is not None:
            expression.check(sample.sides, sample.contrast is not None, sample.reason)
        try:
            with spend.on(findings, work, sample, quiet), recording_progress(quiet) as progress:
                found = score_findings(findings, source, work, sample, progress)
        finally:
            work.store.close()
        if expression is not None:
            try:
                found = found.model_copy(update={"gate": expression.evaluate(found)})
            except ExpressionError as error:
                problem = error
        if out is not None:
            _write(folder / FILE_NAME, found)
    return found, problem


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where judgements lie while they are made: `--out`, locked, or a place that is gone afterwards."""
    from agent.errors import ConfigError
    from tracing.lock import run_lock

    if out is None:
        with tempfile.TemporaryDirectory(prefix="score-") as folder:
            yield Path(folder)
        return
    _refuse_foreign(out / FILE_NAME)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"--out {out}: expected a folder to write to ({error.strerror})") from None
    with run_lock(out):
        yield out


def _refuse_foreign(path: Path) -> None:
    from agent.errors import ConfigError
    from agent.score import SCORE_FORMAT

    if not path.exists():
        return
    try:
        ours = json.loads(path.read_bytes())["format"] == SCORE_FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ConfigError(f"{path}: expected to write it, found one that is not discover's; choose another --out DIR")


def _write(path: Path, found: Score) -> None:
    from tracing.whole_file import whole_file

    with whole_file(path) as file:
        file.write(json_text(found).encode())


def json_text(found: Score) -> str:
    """`score.json`: field order of the schema, full precision; lone surrogates of untrusted names become U+FFFD."""
    text = json.dumps(found.model_dump(mode="python"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


# ---- for people


def gate_line(gate: GateRecord) -> str:
    """The condition, whether it is true, and the numbers it looked at."""
    from agent.report.visible import one_line

    values = one_line(", ".join(f"{text} = {value(e, 4)}" for text, e in gate.values.items()), 600)
    outcome = "TRUE, exit code 1" if gate.true else "false"
    return f"--fail-if {one_line(gate.expression, 300)}: {outcome}" + (f" ({values})" if values else "")


def value(e: Estimate | None, digits: int = 2, sign: str = "") -> str:
    """An estimate in one line: "at most 0.31 [0.22, 0.40]"; an en dash where there is none."""
    if e is None or e.estimate is None:
        return "–"
    most = next((f"{note} " for note in ("at most", "at least") if note in e.note), "")
    limits = "" if e.low is None or e.high is None else f" [{e.low:{sign}.{digits}f}, {e.high:{sign}.{digits}f}]"
    return f"{most}{e.estimate:{sign}.{digits}f}{limits}"


def _bare(x: float | None, sign: str = "") -> str:
    return "–" if x is None else f"{x:{sign}.2f}"


def _print(found: Score) -> None:
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(*renderables(found), sep="\n")
    else:
        typer.echo(plain(found), nl=False)


def plain(found: Score, width: int = PLAIN_WIDTH) -> str:
    """The score as text without colours, for pipes and logs."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False, highlight=False, emoji=False)
    console.print(*renderables(found), sep="\n")
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def renderables(found: Score) -> list[RenderableType]:
    """Sentences, a table of shifts and shares, a table of levels per order parameter, the totals and the cautions."""
    from rich.text import Text

    from agent.report.ranking import contrast_text
    from agent.report.visible import one_line

    out: list[RenderableType] = [Text(one_line(sentence, 600), style="bold") for sentence in found.sentences]
    if found.contrast is not None:
        out.append(_shares(found))
    judged = [p for p in found.parameters if p.judged]
    for p in judged:
        out += [Text(one_line(p.parameter.name, 120), style="bold"), *_levels(found, p)]
    if not judged:
        out.append(Text(""))
    if found.contrast is not None:
        here, then = _total(found.change, found.change_is_bound), _total(found.found_change, found.found_change_is_bound)
        out.append(Text(f"Total change  D {here}; when found D {then}"))
        out.append(Text(f"Contrast      {one_line(contrast_text(found.contrast), 600)}"))
    out.append(Text(f"When found    {one_line(contrast_text(found.found_contrast), 600)}"))
    out.append(Text(f"Judge         {one_line(found.judge)}"))
    out += [Text(f"Cost          {_cost(line)}") for line in found.cost]
    if found.cautions:
        out += [Text(""), Text("What would make these numbers wrong", style="bold")]
        out += [Text(f"- {one_line(caution, 600)}") for caution in found.cautions]
    return out


def _cost(line: CostLine) -> str:
    from agent.report.visible import one_line

    usd = "price not known" if line.usd is None else f"${line.usd:.4f}"
    tokens = f"{line.input_tokens:,} + {line.output_tokens:,} tokens"
    return f"{line.role} {one_line(line.provider)}: {line.calls:,} calls, {tokens}, {usd}"


def _total(change: Estimate | None, is_bound: bool) -> str:
    if change is None or change.estimate is None:
        return f"not known ({change.note})" if change is not None and change.note else "not known"
    return ("at least " if is_bound and "at least" not in change.note else "") + value(change, 3)


def _shares(found: Score) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from agent.report.visible import one_line

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("order parameter", min_width=20, overflow="fold")
    for heading in ("shift", "found", "D[O]", "found", "share of D", "found"):
        grid.add_column(heading, justify="right")
    for p in found.parameters:
        was = p.found
        cells = (value(p.shift, 2, "+"), _bare(was.shift, "+"), value(p.change), value(was.change), value(p.share), value(was.share))
        if not p.judged:
            cells = ("not judged", *cells[1:])
        grid.add_row(Text(f"{one_line(p.parameter.name, 120)} [{p.parameter.badge}]"), *(Text(_two_lines(cell)) for cell in cells))
    grid.add_section()
    together = (value(found.joint), value(found.found_joint))
    grid.add_row(Text("all together"), "", "", "", "", *(Text(_two_lines(cell)) for cell in together))
    return grid


def _two_lines(cell: str) -> str:
    return cell.replace(" [", "\n[")


def _levels(found: Score, p: ParameterScore) -> list[RenderableType]:
    """A table of levels, or several where there are too many sides for one."""
    # a single side says the same as all together
    sides = p.sides if len(p.sides) > 2 else p.sides[1:]
    return [_levels_of(found, p, sides[k : k + SIDES_SHOWN]) for k in range(0, len(sides), SIDES_SHOWN)]


def _levels_of(found: Score, p: ParameterScore, sides: tuple[SideScore, ...]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from agent.report.visible import one_line

    was = p.found
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("level", min_width=16, overflow="fold")
    for side in sides:
        grid.add_column(Text(one_line(side.side, 40)), justify="right")
    contrast = found.found_contrast
    grid.add_column(Text(f"found: {one_line(contrast.before, 30)} → {one_line(contrast.after, 30)}"), justify="right", max_width=24)
    for k, anchor in enumerate(p.parameter.levels):
        before, after = (None if rates is None else rates[k] for rates in (was.before, was.after))
        cells = [value(side.rates[k]) for side in sides]
        grid.add_row(Text(f"{k} {one_line(anchor, 120)}"), *map(Text, cells), f"{_bare(before)} → {_bare(after)}")
    grid.add_section()
    means = f"{_bare(was.mean_before)} → {_bare(was.mean_after)}"
    grid.add_row(Text("expected level"), *(Text(value(s.mean)) for s in sides), means)
    missing = f"{_bare(was.missing_before)} → {_bare(was.missing_after)}"
    grid.add_row(Text("missing"), *(Text(value(s.missing)) for s in sides), missing)
    return grid
