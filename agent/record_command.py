"""`discover record`: ask the checkpoints of a training run, score their answers, and write a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.checkpoint_source import CheckpointSource
    from agent.sampling_plan import SamplingPlan
    from probes.sampler import Question

RECORDED = "-recorded"
"""`discover --run DIR` records a folder of checkpoints beside it, under its name and this."""
PREFIXES = (8, 16, 32, 64, 128)


def record(
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Run directory to write.")],
    questions: Annotated[
        list[str], typer.Option("--questions", metavar="FILE", help="TOML file or the name of one of our sets; may be given several times.")
    ],
    checkpoints: Annotated[
        Path | None, typer.Option("--checkpoints", metavar="DIR", help="Output directory of a Trainer (transformers, TRL).")
    ] = None,
    stages: Annotated[
        str | None, typer.Option("--stages", metavar="NAME=PATH,…", help="Whole models in order, e.g. base=PATH,sft=PATH,dpo=PATH.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="PATH", help="Base of the adapters; also step 0 of a full fine-tune.")
    ] = None,
    responses: Annotated[int, typer.Option("--responses", metavar="N", help="Responses per question and sampled checkpoint.")] = 8,
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", help="Where a response is cut.")] = 128,
    sampling: Annotated[str, typer.Option("--sampling", metavar="PLAN", help="auto: few checkpoints, more where needed; every.")] = "auto",
    window: Annotated[
        int | None, typer.Option("--window", metavar="L", help="With every: score under checkpoints within 2L-1 only; default: under all.")
    ] = None,
    anchors: Annotated[int | None, typer.Option("--anchors", metavar="N", help="With auto: most checkpoints sampled; default 12.")] = None,
    score_every: Annotated[
        int, typer.Option("--score-every", metavar="K", help="With auto: score every Kth checkpoint first, then all near the change.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or mps; default: the best there is.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", metavar="N", help="Copies of the subject computing side by side.")] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Compute on a Ray cluster: auto, HOST:PORT, or local for one here.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Sample and score the checkpoints of a training run; interrupted, the same command goes on where it stopped.

    \b
    Examples:
      discover record --checkpoints outputs/sft --questions medical --questions mine.toml --out runs/sft
      discover record --stages base=models/base,sft=models/sft,dpo=models/dpo --questions politics --out runs/stages
    """  # noqa: D301
    from agent.anchor_plan import make_plan
    from agent.checkpoint_source import checkpoints_in, stages_in
    from agent.choices import stages_of

    plan = make_plan(sampling, window, anchors, score_every)
    if (checkpoints is None) == (stages is None):
        raise ConfigError(f"expected one of --checkpoints and --stages, found {'neither' if stages is None else 'both'}")
    found = stages_in(stages_of(stages, named=True), base_model) if checkpoints is None else checkpoints_in(checkpoints, base_model)
    record_source(found, read_questions(questions), out, plan, responses, max_tokens, seed, dtype, device, workers, quiet, ray)
    typer.echo(f"Recorded: {out}\nNow: discover --run {out}")


def record_source(
    source: CheckpointSource,
    questions: tuple[Question, ...],
    out: Path,
    plan: SamplingPlan,
    responses: int = 8,
    max_tokens: int = 128,
    seed: int = 0,
    dtype: str = "float32",
    device: str | None = None,
    workers: int | None = None,
    quiet: bool = False,
    ray: str | None = None,
) -> None:
    """Record with progress on the terminal; what a reader should know is said at once.

    Raises:
        ConfigError: An option is out of range.
    """
    from agent.checkpoint_recording import Recorder, record_checkpoints
    from agent.instrument import Drawing
    from agent.progress import recording_progress
    from agent.report.visible import one_line
    from probes.subjects import DTYPES

    for option, value in (("--responses", responses), ("--max-tokens", max_tokens), ("--workers", 1 if workers is None else workers)):
        if value < 1:
            raise ConfigError(f"expected {option} of at least 1, found {value}")
    if dtype not in DTYPES:
        raise ConfigError(f"expected --dtype {', '.join(DTYPES)}, found {dtype}")
    if not quiet:
        typer.echo(f"{one_line(source.name, 80)}: {len(source.steps)} checkpoints, {len(questions)} questions", err=True)
        for note in source.notes:
            typer.echo(f"note: {one_line(note, 300)}", err=True)
    drawing = Drawing(responses, max_tokens, seed, tuple(prefix for prefix in PREFIXES if prefix < max_tokens))
    notes: list[str] = []
    with recording_progress(quiet) as progress:
        run = record_checkpoints(source, questions, out, Recorder(drawing, plan, dtype, device, workers, ray, notes.append), progress)
    if not quiet:
        for note in notes:
            typer.echo(f"note: {one_line(note, 300)}", err=True)
        typer.echo(plan.summary(run), err=True)


def recorded_run(run: str, questions: list[str] | None, base_model: str | None, quiet: bool) -> str:
    """The run directory behind `--run`: for a folder of checkpoints, the recording beside it, made first.

    Raises:
        ConfigError: Questions are missing, or given for something that is recorded already.
    """
    from tracing.run_directory import MANIFEST_NAME
    from tracing.trainer_output import is_trainer_output

    path = Path(run)
    if (path / MANIFEST_NAME).exists() or not is_trainer_output(path):
        for option, given in (("--questions", questions), ("--base-model", base_model)):
            if given:
                raise ConfigError(f"{option}: expected with a folder of checkpoints only, found --run {run}")
        return run
    out = path.resolve().with_name(path.resolve().name + RECORDED)
    if not questions:
        if (out / MANIFEST_NAME).exists():
            return str(out)
        from prompts.question_set import question_set_names

        raise ConfigError(
            f"--run {run}: a folder of checkpoints is recorded first: expected --questions FILE "
            f"(or {', '.join(question_set_names())}), found none"
        )
    from agent.anchor_plan import make_plan
    from agent.checkpoint_source import checkpoints_in

    record_source(checkpoints_in(path, base_model), read_questions(questions), out, make_plan(), quiet=quiet)
    return str(out)


def read_questions(names: list[str]) -> tuple[Question, ...]:
    """The questions of files and of our own sets, in order, each once."""
    from probes.sampler import Question
    from prompts.question_set import load_question_set

    sets = [load_question_set(part) for name in names for part in name.split(",")]
    return tuple(dict.fromkeys(Question(text, each.system) for each in sets for text in each.questions))
