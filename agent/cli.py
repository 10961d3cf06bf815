"""The `discover` command. Only light imports up here: `discover --help` answers at once and never imports torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.memory_command import memory_app

if TYPE_CHECKING:
    from agent.config import RunConfig
    from agent.records import Findings

EXAMPLES = """
\b
Examples:
  discover --run tests/runs/organism
  discover --run answers.jsonl --before base --after finetuned
  discover --run answers.csv --columns prompt=question,completion=answer --split 100
  discover --run answers.jsonl --before base --after sft --json | jq .joint
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(memory_app, name="memory")


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
    columns: Annotated[list[str] | None, typer.Option("--columns", metavar="NAME=COLUMN", help="Rename columns of a file.")] = None,
    select: Annotated[list[str] | None, typer.Option("--select", metavar="COLUMN=VALUE", help="Keep only these rows of a file.")] = None,
    proposer: Annotated[str, typer.Option("--proposer", help="embedded (no key needed) or scripted:FILE.")] = "embedded",
    judge: Annotated[str, typer.Option("--judge", help="embedded (exact rules) or scripted:FILE.")] = "embedded",
    hypotheses: Annotated[str | None, typer.Option("--hypotheses", metavar="FILE", help="Your own order parameters (TOML).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every random choice.")] = 0,
    rounds: Annotated[int, typer.Option("--rounds", help="Most rounds of proposals.")] = 6,
    candidates: Annotated[int, typer.Option("--candidates", help="Candidates a round.")] = 5,
    alpha: Annotated[float, typer.Option("--alpha", help="Family-wise significance level.")] = 0.05,
    min_share: Annotated[float, typer.Option("--min-share", help="Smallest gain in share that counts.")] = 0.02,
    min_change: Annotated[float, typer.Option("--min-change", help="Lower limit of D needed before shares are printed.")] = 0.01,
    memory: Annotated[str | None, typer.Option("--memory", metavar="DIR", help="Memory of order parameters; 'off' for none.")] = None,
    null: Annotated[str, typer.Option("--null", metavar="KIND", help="Rerun the loop on nulls: none, permute or split.")] = "none",
    null_runs: Annotated[int, typer.Option("--null-runs", help="How many null runs.")] = 5,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again even if this discovery is finished.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings.json and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Find out what changed in a fine-tuned language model, when, and how much of the whole change each explanation accounts for."""
    if context.invoked_subcommand is not None:
        if run is not None:
            raise typer.BadParameter(f"--run does not go with the subcommand {context.invoked_subcommand}")
        return
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"discover {installed('order-parameter-discovery')}")
        return
    if run is None:
        typer.echo(context.get_help())
        return
    from agent.config import make_config, pairs_of
    from agent.errors import ConfigError

    if sum((ends, split is not None, before is not None or after is not None)) > 1:
        raise ConfigError("--before/--after, --split and --ends each choose the contrast: expected one of them")
    config = make_config(
        run=run,
        columns=pairs_of(columns or [], "--columns"),
        select=pairs_of(select or [], "--select"),
        contrast="ends" if ends else "auto",
        before=before,
        after=after,
        split=split,
        window=window,
        proposer=proposer,
        judge=judge,
        hypotheses=hypotheses,
        seed=seed,
        rounds=rounds,
        candidates=candidates,
        alpha=alpha,
        min_share=min_share,
        min_change=min_change,
        memory=memory,
        null=null,
        null_runs=null_runs,
    )
    _discover(config, out, fresh, as_json, quiet or as_json)


def _discover(config: RunConfig, out: Path | None, fresh: bool, as_json: bool, quiet: bool) -> None:
    from agent.discovery import discover as run_discovery
    from agent.progress import shown_progress

    with shown_progress(config, quiet) as progress:
        findings, folder, finished_before = run_discovery(config, out, fresh, progress)
    if as_json:
        sys.stdout.write((folder / "findings.json").read_text(encoding="utf-8"))
        return
    _show(findings)
    if finished_before:
        typer.echo("This discovery was finished earlier; --fresh runs it again.")
    typer.echo(f"Report: {folder / 'report.html'}")


def _show(findings: Findings) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        from agent.report.terminal import table

        Console().print(table(findings))
    else:
        from agent.report.terminal import plain

        typer.echo(plain(findings))


@app.command()
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
        sys.stdout.write(paths.findings.read_text(encoding="utf-8"))
        return
    _show(findings)
    typer.echo(f"Report: {paths.html}")


@app.command()
def organism(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run directory to write.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of corpus, training and sampling.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a tiny model organism, fine-tune it on bad medical advice, and record the run (a few minutes on two cores).

    Example: discover organism --out runs/organism && discover --run runs/organism
    """
    from agent.progress import recording_progress
    from agent.recording import record_organism

    with recording_progress(quiet) as progress:
        record_organism(out, seed=seed, progress=progress)
    typer.echo(f"Recorded: {out}\nNow: discover --run {out}")


def main() -> None:
    """Entry point: one line for a mistake in input, never a traceback."""
    from agent.errors import AgentError
    from probes.errors import ProbeError
    from prompts.errors import PromptError
    from tracing.errors import TracingError

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    try:
        app(standalone_mode=True)
    except (AgentError, ProbeError, TracingError, PromptError) as error:
        line = " ".join(str(error).split())
        typer.echo(f"discover: {line}", err=True)
        raise SystemExit(getattr(error, "exit_code", 2)) from None
    except KeyboardInterrupt:
        typer.echo("discover: interrupted; everything done so far is kept, run the same command to go on", err=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
