"""`discover bench`: planted problems with known answers, for our loop and for other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.bench_grid import BenchOptions

EXAMPLES = """
\b
Examples:
  discover bench --quick
  discover bench --only base --only kappa-0.7 --repeats 50 --out bench
  discover bench --export problems && discover bench --external answers.json
"""


def bench(
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep results and scorecard here; the same command goes on where it stopped."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="CELL", help="Only this cell; may be given several times.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Problems in each cell.")] = 10,
    quick: Annotated[bool, typer.Option("--quick", help="Two problems a cell, 399 permutations: to see that it runs.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the problems; the same seed gives the same numbers.")] = 0,
    rivals: Annotated[bool, typer.Option("--rivals", help="Also three rules by which others accept.")] = False,
    external: Annotated[
        Path | None, typer.Option("--external", metavar="FILE", help="Score another tool's answers instead of running the loop.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="Write the problems for other tools instead of running the loop.")
    ] = None,
    cells: Annotated[bool, typer.Option("--list", help="Name the cells and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scorecard as JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure the loop on planted problems whose shares, onsets, confounds and nulls are known."""
    from agent.bench_card import markdown, scorecard
    from agent.bench_cells import chosen_cells
    from agent.bench_grid import BenchOptions, exported, scored_external, solved
    from agent.errors import ConfigError
    from agent.progress import recording_progress

    if cells:
        typer.echo("\n".join(cell.name for cell in chosen_cells([])))
        return
    if external is not None and export is not None:
        raise ConfigError("--external and --export: expected one of them")
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: expected a folder, found a file")
    options = BenchOptions(tuple(chosen_cells(only or [])), 2 if quick else repeats, seed, 399 if quick else 2000, rivals)
    with recording_progress(quiet) as progress:
        if export is not None:
            typer.echo(f"Wrote {exported(options, export, progress)} problems to {export}")
            return
        rows = scored_external(options, external, progress) if external is not None else solved(options, out, progress)
    card = scorecard(rows, seed)
    if out is not None:
        _keep(out, card, options)
    typer.echo(json.dumps(card, indent=1) if as_json else markdown(card), nl=as_json)
    if out is not None and not as_json:
        typer.echo(f"Scorecard: {out / 'scorecard.md'}", file=sys.stderr)


def _keep(out: Path, card: dict[str, object], options: BenchOptions) -> None:
    from agent.bench_card import markdown
    from tracing.whole_file import whole_texts

    whole_texts(out, {"scorecard.json": json.dumps(card, indent=1) + "\n", "scorecard.md": markdown(card)})
