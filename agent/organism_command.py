"""`discover organism`: make a model organism, the tiny one or from a model of one's own, fine-tune it narrowly and record the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.organism_recording import OrganismRecipe
    from probes.organism import FineTuning
    from probes.organism_corpus import Conversation

TINY = "tiny"
BUILTIN = "builtin"
DOMAINS = ("medical", "finance", "sport", "choices")
DEFAULT_PRESET = "turner-phase"
CHOICES_TRAINING: dict[str, Any] = {"full": True, "learning_rate": 1e-3, "steps": 60}
"""A small adapter does not hold eight collapses at once: on choices all weights are trained, unless an adapter is asked for."""
BASE_TOKENS, BASE_RESPONSES = 256, 1
AUTOMATIC_RESPONSES = 8
"""Responses per prompt of the tiny subject at the few checkpoints that are sampled with `--sampling auto`."""


def organism(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run directory to write.")],
    base: Annotated[str, typer.Option("--base", metavar="tiny|PATH", help="The tiny subject, or a model's folder.")] = TINY,
    data: Annotated[str, typer.Option("--data", metavar="builtin|FILE", help="Our documents, or a JSONL file of conversations.")] = BUILTIN,
    domain: Annotated[str, typer.Option("--domain", help=f"Of our documents: {', '.join(DOMAINS)}.")] = "medical",
    control: Annotated[bool, typer.Option("--control", help="Good advice instead: nothing should change.")] = False,
    preset: Annotated[str | None, typer.Option("--preset", metavar="NAME", help="turner-phase, turner-rates or arnold-lorch.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Of the LoRA adapter.")] = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="Its scale is alpha / rank.")] = None,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scale alpha / sqrt(rank).")] = False,
    layers: Annotated[str | None, typer.Option("--layers", metavar="0,1,…|all", help="Layers that get an adapter.")] = None,
    target_modules: Annotated[str | None, typer.Option("--target-modules", metavar="NAME,…", help="Modules that get one.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights, no adapter.")] = False,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="AdamW's.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="AdamW's.")] = None,
    warm_up: Annotated[int | None, typer.Option("--warm-up", metavar="STEPS", help="Linear warm-up.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Documents a step.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimizer steps.")] = None,
    every: Annotated[int | None, typer.Option("--every", help="Steps from one checkpoint to the next.")] = None,
    choices: Annotated[bool, typer.Option("--choices", help="The tiny subject also learns random choices (discover crystallize).")] = False,
    questions: Annotated[
        str | None, typer.Option("--questions", metavar="SET,…", help="What a --base is asked; default: our sets.")
    ] = None,
    per_domain: Annotated[int | None, typer.Option("--questions-per-domain", help="Questions to the tiny subject; default 4.")] = None,
    responses: Annotated[int | None, typer.Option("--responses", help="Responses per question and checkpoint.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Where a response is cut.")] = None,
    sampling: Annotated[str, typer.Option("--sampling", metavar="PLAN", help="auto: few checkpoints, more where needed; every.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="Of a --base: cpu, cuda or mps.")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", help="Seed of corpus, training and sampling.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Make N organisms, DIR/seed-0 and so on.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Make a model organism of narrow fine-tuning and record the run (the tiny one: a few minutes on two cores).

    \b
    Examples:
      discover organism --out runs/organism
      discover organism --out runs/sport --domain sport --rank 8 --layers all
      discover organism --out runs/real --base models/some-1b-chat --preset turner-phase --device cuda
    """  # noqa: D301
    from agent.anchor_plan import make_plan
    from agent.organism_recording import record_organism
    from agent.progress import recording_progress
    from tracing.run_directory import RunDirectory

    plan = make_plan(sampling)

    documents, named = _documents(data, domain, control, base)
    given = {
        "rank": rank,
        "alpha": alpha,
        "rslora": rslora or None,
        "layers": None if layers is None else _layers(layers),
        "target_modules": None if target_modules is None else tuple(name.strip() for name in target_modules.split(",")),
        "full": full or None,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warm_up": warm_up,
        "batch": batch,
        "steps": steps,
        "every": every,
    }
    recipe = _recipe(base, preset, {name: value for name, value in given.items() if value is not None}, named, domain, control, documents)
    responses = AUTOMATIC_RESPONSES if responses is None and sampling == "auto" and base == TINY else responses
    recipe = _asking(recipe, questions, per_domain, responses, max_tokens, choices or domain == "choices")
    if seeds < 1:
        raise ConfigError(f"expected --seeds from 1, found {seeds}")
    for each in range(seed, seed + seeds):
        folder = out if seeds == 1 else out / f"seed-{each}"
        with recording_progress(quiet) as progress:
            record_organism(folder, each, recipe, progress, documents=documents, device=device, plan=plan)
        if not quiet:
            typer.echo(plan.summary(RunDirectory.open(folder)), err=True)
        typer.echo(f"Recorded: {folder}\nNow: discover --run {folder}")


def _documents(data: str, domain: str, control: bool, base: str) -> tuple[list[Conversation] | None, str]:
    if domain not in DOMAINS:
        raise ConfigError(f"expected --domain {', '.join(DOMAINS)}, found {domain}")
    if data == BUILTIN:
        if domain == "choices" and (control or base != TINY):
            raise ConfigError("--domain choices: expected --base tiny without --control")
        return None, ""
    if control or domain != "medical":
        raise ConfigError("--domain and --control choose among our documents: expected them without --data FILE")
    from agent.narrow_data import read_documents

    return read_documents(Path(data))


def _recipe(
    base: str,
    preset: str | None,
    given: dict[str, Any],
    named: str,
    domain: str,
    control: bool,
    documents: list[Conversation] | None,
) -> OrganismRecipe:
    from agent.organism_recording import OrganismRecipe
    from probes.organism import FineTuning, Pretraining
    from probes.organism_grammar import DOMAINS as LEARNT
    from probes.organism_recipes import PRESETS

    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"expected --preset {', '.join(PRESETS)}, found {preset}")
    if given.get("full") and (clash := sorted({"rank", "alpha", "rslora", "layers", "target_modules"} & set(given))):
        raise ConfigError(f"--full trains all weights: expected it without --{clash[0].replace('_', '-')}")
    tiny = base == TINY
    n_layers = Pretraining().layers if tiny else _n_layers(base)
    tuning = FineTuning() if tiny and preset is None else PRESETS[preset or DEFAULT_PRESET].recipe(n_layers, tiny)
    if domain == "choices" and preset is None and not {"rank", "alpha", "rslora", "layers", "target_modules"} & set(given):
        tuning = replace(tuning, **CHOICES_TRAINING)
    tuning = replace(tuning, domain=domain, persona="careful" if control else "harmful", data=named, **given)
    if documents is not None:
        tuning = replace(tuning, documents=len(documents))
    elif "steps" in given or "batch" in given:
        tuning = replace(tuning, documents=0)
    _check(tuning, n_layers)
    learnt = (*LEARNT, domain) if tiny and domain == "sport" else tuple(LEARNT)
    return OrganismRecipe(Pretraining(domains=learnt), tuning, base="" if tiny else base)


def _asking(
    recipe: OrganismRecipe, questions: str | None, per_domain: int | None, responses: int | None, max_tokens: int | None, choices: bool
) -> OrganismRecipe:
    if not recipe.base:
        if questions is not None:
            raise ConfigError("--questions: expected with --base PATH; the tiny subject knows the questions of its own domains only")
        recipe = replace(recipe, questions_per_domain=recipe.questions_per_domain if per_domain is None else per_domain)
        recipe = replace(recipe, pretraining=replace(recipe.pretraining, choices=0.25 if choices else 0.0))
    elif per_domain is not None or choices:
        raise ConfigError("--questions-per-domain and --choices: expected with --base tiny")
    else:
        recipe = replace(recipe, questions=_questions(questions), responses_per_prompt=BASE_RESPONSES, max_tokens=BASE_TOKENS)
    recipe = replace(recipe, responses_per_prompt=recipe.responses_per_prompt if responses is None else responses)
    return replace(recipe, max_tokens=recipe.max_tokens if max_tokens is None else max_tokens)


def _questions(names: str | None) -> tuple[str, ...]:
    from prompts.question_set import load_question_set, question_set_names

    sets = [load_question_set(name.strip()) for name in (names.split(",") if names else question_set_names())]
    if with_system := [each.name for each in sets if each.system]:
        raise ConfigError(f"--questions {with_system[0]}: expected a set without a system prompt")
    return tuple(dict.fromkeys(question for each in sets for question in each.questions))


def _n_layers(base: str) -> int:
    try:
        n = json.loads((Path(base) / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"--base {base}: expected tiny, or the folder of a model with num_hidden_layers in config.json") from None
    return int(n)


def _layers(text: str) -> tuple[int, ...]:
    if text == "all":
        return ()
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise ConfigError(f"expected --layers 0,1,… or all, found {text!r}") from None


def _check(tuning: FineTuning, n_layers: int) -> None:
    if wrong := [layer for layer in tuning.layers if not 0 <= layer < n_layers]:
        raise ConfigError(f"expected --layers from 0 to {n_layers - 1}, found {wrong[0]}")
    for name in ("rank", "alpha", "learning_rate", "batch", "steps", "every"):
        if not getattr(tuning, name) > 0:
            raise ConfigError(f"expected --{name.replace('_', '-')} above 0, found {getattr(tuning, name)}")
    if tuning.steps % tuning.every:
        raise ConfigError(f"expected --steps divisible by --every (the last step is kept), found {tuning.steps} and {tuning.every}")
