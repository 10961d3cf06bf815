"""`discover crystallize`: when do a subject's random choices stop being random, and from which seed?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.command_answer import give_answer
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from agent.choices import ChoiceSet
    from agent.random_tasks import RandomTask
    from probes.crystallization import Crystallization


def crystallize(
    stages: Annotated[
        str | None,
        typer.Option(
            "--stages", metavar="NAME=PATH,…", help="Weights (or adapters) of each stage, in order; with --run steps, with --counts stages."
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="A run: recorded answers to the tasks, or its checkpoints.")
    ] = None,
    counts: Annotated[Path | None, typer.Option("--counts", metavar="FILE", help="CSV: stage, task, phrasing, option, count.")] = None,
    tasks: Annotated[Path | None, typer.Option("--tasks", metavar="PATH", help="Your own tasks (TOML); default: ours.")] = None,
    base_model: Annotated[str | None, typer.Option("--base-model", metavar="PATH", help="Base of the stages that are adapters.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write crystallization.json and .html there.")] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Family-wise significance level.")] = 0.05,
    cluster_distance: Annotated[float, typer.Option("--cluster-distance", help="Phrasings nearer than this answer the same.")] = 0.25,
    null: Annotated[int, typer.Option("--null", metavar="N", help="Also count the calls on N copies with stages exchanged.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every random choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Find the stage at which finite random choices (coins, dice, numbers 1 to 10, …) crystallize: liquid, nucleation, settling.

    \b
    Examples:
      discover crystallize --stages base=models/base,sft=models/sft,dpo=models/dpo --out crystals
      discover crystallize --run runs/sft --stages start=0,middle=60,end=120
      discover crystallize --counts probs.csv --json
    """  # noqa: D301
    from agent.crystallize_page import as_json as written
    from agent.crystallize_page import page
    from probes.crystallization import crystallize as measure

    if not 0 < alpha < 1 or not 0 < cluster_distance < 1:
        raise ConfigError(f"expected --alpha and --cluster-distance between 0 and 1, found {alpha} and {cluster_distance}")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"expected --dtype float32, bfloat16 or float16, found {dtype}")
    from numpy.random import default_rng

    rng = default_rng(seed)
    source, given = _choices(stages, run, counts, tasks, base_model, dtype, quiet or as_json)
    found = measure(given.subjects, given.options, given.stages, rng, alpha, cluster_distance)
    notes = list(dict.fromkeys([*given.notes, *(note for each in found for note in each.notes)]))
    if null > 0:
        notes.append(_null(given, null, rng, alpha, cluster_distance))
    text = written(found, source, notes)
    give_answer("crystallization", text, lambda: page(found, source, notes), lambda: _show(found, notes), out, as_json)


def _choices(
    stages: str | None, run: str | None, counts: Path | None, tasks: Path | None, base_model: str | None, dtype: str, quiet: bool
) -> tuple[str, ChoiceSet]:
    """Where the answers come from, and the answers."""
    if run is not None and counts is not None:
        raise ConfigError("expected one of --run and --counts, found both")
    from agent.choices import stages_of

    if counts is not None:
        from agent.choice_tables import read_counts

        return str(counts), read_counts(counts, stages_of(stages, named=False))
    from agent.choice_stages import ask_stages, run_stages
    from agent.random_tasks import load_tasks

    def report(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    asked = load_tasks(_tasks_of(run) if tasks is None else tasks)
    if run is None:
        if stages is None:
            raise ConfigError("expected --stages NAME=PATH,NAME=PATH, or --run RUN, or --counts FILE, found none of them")
        folders = {name: Path(path) for name, path in stages_of(stages, named=True).items()}
        if len(folders) < 2:
            raise ConfigError(f"expected at least two --stages, found {len(folders)}")
        return stages, ask_stages(" -> ".join(folders), folders, asked, base_model, dtype, report)
    wanted = stages_of(stages, named=False)
    if (recorded := _recorded(run, asked, wanted)) is not None:
        return run, recorded
    return run, ask_stages(Path(run).name, run_stages(Path(run), wanted), asked, base_model, dtype, report)


def _tasks_of(run: str | None) -> Path | None:
    """An organism that has learnt random choices of its own says which."""
    folder = None if run is None else Path(run) / "tasks"
    return folder if folder is not None and folder.is_dir() else None


def _recorded(run: str, asked: Sequence[RandomTask], wanted: dict[str, str]) -> ChoiceSet | None:
    """Answers to the tasks that lie in the recording, if it is one and holds any."""
    from agent.choice_recordings import recorded_choices
    from tracing import load
    from tracing.run_directory import MANIFEST_NAME

    if Path(run).is_dir() and not (Path(run) / MANIFEST_NAME).exists():
        return None  # a Trainer's folder: only weights
    if _tasks_of(run) is not None:
        return None  # an organism's weights lie there: exact probabilities instead of counts
    return recorded_choices(load(run), asked, wanted)


def _null(given: ChoiceSet, n: int, rng: np.random.Generator, alpha: float, distance: float) -> str:
    """How often anything is called when the stages are exchanged at random within each phrasing."""
    from probes.crystallization import crystallize as measure
    from probes.crystallization import permuted

    called = 0
    for _ in range(n):
        shuffled = {name: permuted(choices, rng) for name, choices in given.subjects.items()}
        called += sum(bool(each.calls) for each in measure(shuffled, given.options, given.stages, rng, alpha, distance))
    total = n * len(given.subjects)
    return f"null: with stages exchanged at random, something was called in {called} of {total} copies ({called / total:.1%})"


def _show(found: tuple[Crystallization, ...], notes: list[str]) -> None:
    from agent.crystallize_page import LEGEND, across_sentences, plain, sentences, terminal
    from agent.report.visible import one_line

    if not sys.stdout.isatty():
        for each in found:
            typer.echo(plain(each))
        for each in found:
            typer.echo(f"# {one_line(each.subject, 80)}: {' '.join(sentences(each))}")
        for sentence in across_sentences(found):
            typer.echo(f"# {sentence}")
        for note in notes:
            typer.echo(f"# {one_line(note, 600)}")
        return
    from rich.console import Console

    console = Console()
    for each in found:
        console.print(terminal(each))
        for sentence in sentences(each):
            console.print(sentence, markup=False, highlight=False)
    for sentence in across_sentences(found):
        console.print(sentence, markup=False, highlight=False)
    console.print(LEGEND, style="dim", markup=False, highlight=False)
    for note in notes:
        console.print(f"Note: {one_line(note, 600)}", style="dim", markup=False, highlight=False)
