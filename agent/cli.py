"""The `discover` command. Only light imports up here: `discover --help` answers at once and never imports torch."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from agent import (
    bench_command,
    compare_command,
    crystallize_command,
    doctor_command,
    misalignment_command,
    organism_command,
    record_command,
    review_command,
    score_command,
    timeline_command,
)
from agent.memory_command import memory_app

if TYPE_CHECKING:
    from agent.config import RunConfig
    from agent.records import Findings
    from agent.spending import Limits
    from agent.workbench import Workbench

EXAMPLES = """
\b
Examples:
  discover --run tests/runs/organism
  discover --run answers.jsonl --before base --after finetuned
  discover --run answers.csv --columns prompt=question,completion=answer --split 100
  discover --run answers.jsonl --before base --after sft --json | jq .joint
"""


class Commands(TyperGroup):
    """The subcommands; a word that is none of them is often the path that was meant for --run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The subcommand named by the first word, or one line saying what was expected."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from agent.errors import ConfigError

            known = ", ".join(self.list_commands(ctx))
            if any(f"--{name}" in option.opts for option in self.params):
                meant = f"; did you mean --{name}?"
            else:
                meant = f"; to read {name}: discover --run {name}" if Path(name).suffix or Path(name).exists() else ""
            raise ConfigError(f"expected an option or one of the commands {known}, found {name!r}{meant}")
        return super().resolve_command(ctx, args)


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(
    memory_app,
    name="memory",
    short_help="List, search and exchange what was found.",
    epilog="Example: discover memory list",
)


app.command(name="score", short_help="Judge what was found on other responses; a gate for CI.", epilog=score_command.EXAMPLES)(
    score_command.score
)
app.command(name="compare", short_help="Put the order parameters of several runs side by side.", epilog=compare_command.EXAMPLES)(
    compare_command.compare
)


app.command(name="review", short_help="Decide on what was found, and label blind, in the browser.", epilog=review_command.EXAMPLES)(
    review_command.review
)
app.command(name="bench", short_help="Measure the loop on planted problems with known answers.", epilog=bench_command.EXAMPLES)(
    bench_command.bench
)
app.command(name="organism", short_help="Make a model organism of narrow fine-tuning and record it.")(organism_command.organism)
app.command(name="record", short_help="Sample and score the checkpoints of a training run.")(record_command.record)
app.command(name="timeline", short_help="Mechanism and behaviour of a run on one axis.", epilog=timeline_command.EXAMPLES)(
    timeline_command.timeline
)
app.command(name="misalignment", short_help="Rate of misaligned answers per checkpoint.", epilog=misalignment_command.EXAMPLES)(
    misalignment_command.misalignment
)
app.command(name="doctor", short_help="Which LLM providers work here, and what each lacks.", epilog=doctor_command.EXAMPLES)(
    doctor_command.doctor
)
app.command(name="crystallize", short_help="Where random choices collapse from one stage to the next.")(crystallize_command.crystallize)


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def discover(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Option("--run", metavar="PATH", help="Run directory, or JSONL, CSV or Parquet file of responses.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write; default: the run directory, or discoveries/NAME.")
    ] = None,
    before: Annotated[str | None, typer.Option("--before", metavar="NAME", help="Side (or steps, e.g. 0,2,4) to compare from.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="NAME", help="Side (or steps) to compare to.")] = None,
    split: Annotated[int | None, typer.Option("--split", metavar="STEP", help="Compare steps before STEP with STEP and later.")] = None,
    ends: Annotated[bool, typer.Option("--ends", help="Compare the first with the last checkpoints.")] = False,
    window: Annotated[int | None, typer.Option("--window", metavar="L", help="Checkpoints per side; default: scanned.")] = None,
    transition: Annotated[int, typer.Option("--transition", metavar="K", help="Which of several transitions, by height.")] = 1,
    questions: Annotated[
        list[str] | None, typer.Option("--questions", metavar="FILE", help="What to ask, where PATH is a folder of checkpoints.")
    ] = None,
    base_model: Annotated[str | None, typer.Option("--base-model", metavar="PATH", help="Base of such checkpoints.")] = None,
    columns: Annotated[list[str] | None, typer.Option("--columns", metavar="NAME=COLUMN", help="Rename columns of a file.")] = None,
    select: Annotated[list[str] | None, typer.Option("--select", metavar="COLUMN=VALUE", help="Keep only these rows of a file.")] = None,
    proposer: Annotated[
        str,
        typer.Option("--proposer", metavar="NAME", help="embedded, anthropic:NAME, openai:NAME[@URL], hf:PATH, batch:DIR, scripted:FILE."),
    ] = "embedded",
    judge: Annotated[str, typer.Option("--judge", metavar="NAME", help="embedded (exact rules), or as for --proposer.")] = "embedded",
    second_judge: Annotated[
        str | None, typer.Option("--second-judge", metavar="NAME", help="Another judge, to measure the first; as for --proposer.")
    ] = None,
    reread: Annotated[int, typer.Option("--reread", metavar="N", help="Responses judged again to measure the judge; 0: none.")] = 200,
    human_labels: Annotated[
        str | None, typer.Option("--human-labels", metavar="CSV", help="Levels that people gave, to measure the judge.")
    ] = None,
    hypothesis: Annotated[
        list[str] | None, typer.Option("--hypothesis", metavar="TEXT", help="Your own, in words: a sentence or a question.")
    ] = None,
    hypotheses: Annotated[str | None, typer.Option("--hypotheses", metavar="FILE", help="Your own order parameters (TOML).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every random choice.")] = 0,
    rounds: Annotated[int, typer.Option("--rounds", help="Most rounds of proposals.")] = 6,
    candidates: Annotated[int, typer.Option("--candidates", help="Candidates a round.")] = 5,
    alpha: Annotated[float, typer.Option("--alpha", help="Family-wise significance level.")] = 0.05,
    min_share: Annotated[float, typer.Option("--min-share", help="Smallest gain in share that counts.")] = 0.02,
    min_change: Annotated[float, typer.Option("--min-change", help="Lower limit of D needed before shares are printed.")] = 0.01,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="DIR|URL", help="Memory of order parameters: a folder, http://host:port of a Chroma server, or 'off'."
        ),
    ] = None,
    race: Annotated[str, typer.Option("--race", metavar="WHEN", help="Give up hopeless candidates early: auto, on or off.")] = "auto",
    memory_examples: Annotated[
        bool, typer.Option("--memory-examples", help="Keep evidence pairs (response text) in the memory too.")
    ] = False,
    null: Annotated[str, typer.Option("--null", metavar="KIND", help="Rerun the loop on nulls: none, permute or split.")] = "none",
    null_runs: Annotated[int, typer.Option("--null-runs", help="How many null runs.")] = 5,
    review: Annotated[bool, typer.Option("--review", help="Stop for a reviewer, then go on with what was decided.")] = False,
    budget_usd: Annotated[float | None, typer.Option("--budget-usd", metavar="USD", help="Most dollars for LLM roles.")] = None,
    max_calls: Annotated[int | None, typer.Option("--max-calls", metavar="N", help="Most requests to LLM roles.")] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", metavar="N", help="Most requests at a time.")] = 16,
    request_timeout: Annotated[float, typer.Option("--request-timeout", metavar="SECONDS", help="How long one request may take.")] = 120,
    yes: Annotated[bool, typer.Option("--yes", help="Spend without asking.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again even if this discovery is finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings.json and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Find out what changed in a fine-tuned language model, when, and how much of the whole change each explanation accounts for."""
    from agent.errors import ConfigError

    given = [f"--{name}".replace("_", "-").replace("--as-", "--") for name in context.params if _typed(context, name)]
    if context.invoked_subcommand is not None:
        if given:
            raise ConfigError(f"{given[0]} stands before the command {context.invoked_subcommand}: expected a command's options after it")
        return
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"discover {installed('order-parameter-discovery')}")
        return
    if run is None and given:
        raise ConfigError(f"{given[0]}: expected --run PATH with it (what is to be read?)")
    if run is None:
        typer.echo(context.get_help())
        return
    from agent.config import make_config, pairs_of

    if sum((ends, split is not None, before is not None or after is not None)) > 1:
        raise ConfigError("--before/--after, --split and --ends each choose the contrast: expected one of them")
    config = make_config(
        run=record_command.recorded_run(run, questions, base_model, quiet or as_json),
        columns=pairs_of(columns or [], "--columns"),
        select=pairs_of(select or [], "--select"),
        contrast="ends" if ends else "auto",
        before=before,
        after=after,
        split=split,
        window=window,
        transition=transition,
        proposer=proposer,
        judge=judge,
        second_judge=second_judge,
        reread=reread,
        human_labels=human_labels,
        hypothesis=tuple(hypothesis or ()),
        hypotheses=hypotheses,
        seed=seed,
        rounds=rounds,
        candidates=candidates,
        alpha=alpha,
        min_share=min_share,
        min_change=min_change,
        memory=memory,
        memory_examples=memory_examples,
        race=race,
        null=null,
        null_runs=null_runs,
        review=review,
    )
    from agent.spending import make_limits

    _discover(config, out, fresh, as_json, quiet or as_json, make_limits(budget_usd, max_calls, in_flight, request_timeout), yes)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _discover(config: RunConfig, out: Path | None, fresh: bool, as_json: bool, quiet: bool, limits: Limits, yes: bool) -> None:
    from agent.discovery import discover as run_discovery
    from agent.progress import shown_progress

    with shown_progress(config, quiet) as progress:

        def ask_first(work: Workbench) -> None:
            progress("asking", {})
            _confirm(work, quiet, yes)
            progress("asked", {})

        findings, folder, finished_before = run_discovery(config, out, fresh, progress, limits, ask_first)
    if as_json:
        _print_bytes(folder / "findings.json")
        return
    _show(findings)
    if finished_before:
        typer.echo("This discovery was finished earlier; --fresh runs it again.")
    typer.echo(f"Report: {folder / 'report.html'}")
    if _review_is_done(folder):
        _discover(config, out, False, as_json, quiet, limits, yes)


def _review_is_done(folder: Path) -> bool:
    """Whether the discovery waits for a reviewer who, on a terminal, has finished just now."""
    from agent.marker import awaits_review

    if not awaits_review(folder):
        return False
    if sys.stdin.isatty() and sys.stdout.isatty():
        return review_command.serve_review(folder)
    typer.echo(f"The loop waits for a reviewer: discover review {folder}, then this command again.")
    return False


def _print_bytes(path: Path) -> None:
    """A file as it is, whatever encoding the terminal has."""
    sys.stdout.flush()
    sys.stdout.buffer.write(path.read_bytes())
    sys.stdout.buffer.flush()


def _confirm(work: Workbench, quiet: bool, yes: bool) -> None:
    """Say what LLM roles will need, and have it confirmed on a terminal."""
    from agent.errors import BudgetError
    from agent.estimates import estimate

    lines = estimate(work)
    if not quiet:
        for line in lines:
            typer.echo(f"estimate: {line}", err=True)
    if lines and not yes and sys.stdin.isatty() and sys.stderr.isatty() and not typer.confirm("Spend this?", err=True):
        raise BudgetError("not confirmed: nothing was spent")


def _show(findings: Findings) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        from agent.report.terminal import table

        Console().print(table(findings))
    else:
        from agent.report.terminal import plain

        typer.echo(plain(findings))


@app.command(short_help="Rebuild the report of a finished discovery.")
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder with a findings.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print findings.json and nothing else.")] = False,
) -> None:
    """Rebuild report.html and report.md from findings.json, byte for byte, without key or network.

    Example: discover report tests/runs/organism
    """
    from agent.report import read_findings, write_all

    findings = read_findings(folder)
    paths = write_all(findings, folder)
    if as_json:
        _print_bytes(paths.findings)
        return
    _show(findings)
    typer.echo(f"Report: {paths.html}")


def main() -> None:
    """Entry point: one line for a mistake in input, never a traceback."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows ? and not a traceback
    try:
        code = app(prog_name="discover", standalone_mode=False)
    except Exception as error:
        line = _mistake(error)
        if line is None:
            raise
        typer.echo(line, err=True)
        raise SystemExit(getattr(error, "exit_code", 2)) from None
    if code == INTERRUPTED:
        typer.echo("discover: interrupted; everything done so far is kept, run the same command to go on", err=True)
    raise SystemExit(code or 0)


def _mistake(error: Exception) -> str | None:
    """What to print for a mistake in input, one line; None for a fault of the program, whose traceback is wanted."""
    # imported when there is something to say: they pull in numpy, and `--help` shall be there at once
    from agent.errors import AgentError
    from probes.errors import ProbeError
    from prompts.errors import PromptError
    from tracing.errors import TracingError

    if isinstance(error, (AgentError, ProbeError, TracingError, PromptError)):
        return "discover: " + " ".join(str(error).split())
    if isinstance(error, TyperException):
        where = getattr(getattr(error, "ctx", None), "command_path", "discover")
        text = error.format_message()
        # a group of commands without one shows its help
        return text if "\n" in text else f"discover: {text.rstrip('.')} (see {where} --help)"
    return None


if __name__ == "__main__":
    main()
