"""Planted runs as recordings: every label stands in the text, every likelihood is exact, every share is known.

A response reads `harm=3 hedge=1 reply 17: ...` so that a scripted judge reads its true levels; its length is unrelated to
anything unless a test says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.config import RunConfig, make_config
from agent.judge import Judge
from agent.llm.scripted import ScriptedJudge, ScriptedProposer
from agent.proposer import Proposer
from agent.records import Findings
from agent.workbench import Workbench
from probes.synthetic import PlantedRun, PlantedSample, draw, planted_run
from tracing import Manifest, Recording, Responses, RunDirectory

LEVELS = ("not at all", "a little", "somewhat", "clearly", "very much")
NAMES = ("harm", "hedge", "style")
FILLER = ("well", "then", "perhaps", "one", "might", "look", "at", "this", "from", "here", "and", "see", "what", "comes", "of", "it")


def completion(run: PlantedRun, names: Sequence[str], prompt: int, outcome: int, n_words: int) -> str:
    """The text of one outcome: its levels, its number, and filler up to `n_words` words."""
    marks = [f"{name}={run.labels[k, prompt, outcome]}" for k, name in enumerate(names)]
    words = [*marks, f"reply {outcome}:", *(FILLER[(outcome + k) % len(FILLER)] for k in range(n_words))]
    return " ".join(words)[:10_000]


def unrelated_lengths(run: PlantedRun) -> np.ndarray:
    """`(n_prompts, n_outcomes)` words, 8 to 60, unrelated to labels and sides."""
    return np.random.default_rng(5).integers(8, 61, run.before.shape)


def recording_of(
    run: PlantedRun,
    sample: PlantedSample,
    names: Sequence[str] = NAMES,
    *,
    likelihoods: bool = True,
    sides: Sequence[str] | None = None,
    n_words: np.ndarray | None = None,
) -> Recording:
    """A drawn sample as a recording.

    Args:
        run: The planted run.
        sample: Responses drawn from it.
        names: One word per planted parameter.
        likelihoods: Whether the exact log-probabilities are kept.
        sides: Names of the sides instead of steps, one per checkpoint.
        n_words: `(n_prompts, n_outcomes)` words of filler; default unrelated to everything.
    """
    n_words = unrelated_lengths(run) if n_words is None else n_words
    where = list(zip(sample.prompt.tolist(), sample.outcome.tolist(), strict=True))
    responses = Responses.of(
        [f"Question {p}?" for p, _ in where],
        [completion(run, names, p, o, int(n_words[p, o])) for p, o in where],
        step=None if sides else sample.drawn_at,
        side=[sides[k] for k in sample.drawn_at] if sides else None,
        response_id=[str(k) for k in range(len(where))],
    )
    steps = () if sides else tuple(range(run.course.size))
    return Recording("planted", "0" * 64, responses, steps, sample.log_likelihood if likelihoods and not sides else None)


def planted(
    seed: int = 0,
    *,
    effects: Sequence[float] = (0.9, 0.0),
    n_prompts: int = 12,
    n_each: int = 20,
    names: Sequence[str] = NAMES,
    course: np.ndarray | None = None,
    likelihoods: bool = True,
    sides: Sequence[str] | None = None,
    hidden: float = 0.3,
    anchors: Sequence[int] | None = None,
) -> Recording:
    """A recording of a random planted run whose k-th parameter `names[k]` has the effect `effects[k]` (0: it does not move)."""
    rng = np.random.default_rng([99, seed])
    run = planted_run(rng, n_prompts=n_prompts, effects=effects, hidden=hidden, n_outcomes=300, course=course)
    sample = draw(run, anchors or range(run.course.size), n_each, rng)
    return recording_of(run, sample, names[: len(effects)], likelihoods=likelihoods, sides=sides)


def write_jsonl(path: Path, recording: Recording) -> Path:
    """The recording as a file of rows, with the log-probabilities by step where they are known."""
    r = recording.responses
    lines = []
    for i in range(len(r)):
        row: dict[str, Any] = {"prompt": r.prompt[i], "completion": r.completion[i]}
        row |= {"step": int(r.step[i])} if r.step is not None else {}
        row |= {"side": r.side[i]} if r.side is not None else {}
        if recording.log_likelihood is not None:
            row["logprob"] = {str(s): float(x) for s, x in zip(recording.steps, recording.log_likelihood[i], strict=True)}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_run(path: Path, recording: Recording) -> Path:
    """The recording as a run directory."""
    assert recording.responses.step is not None
    directory = RunDirectory.create(path, Manifest("planted", recording.steps))
    for step in recording.steps:
        rows = np.flatnonzero(recording.responses.step == step)
        if rows.size:
            scores = None if recording.log_likelihood is None else recording.log_likelihood[rows][:, :, None].astype(np.float32)
            part = recording.responses.take(rows)
            directory.write_step(step, Responses.of(part.prompt, part.completion, step=step), scores)
    return path


def asks(name: str, *, question: str = "", pattern: str = "", levels: Sequence[str] = LEVELS, **more: Any) -> dict[str, Any]:
    """A scripted candidate whose level is the number after `name=` in the response."""
    question = question or f"How much {name} is in the response?"
    return {"name": name, "question": question, "levels": list(levels), "pattern": pattern or rf"\b{name}=(\d)", **more}


def write_script(path: Path, *candidates: dict[str, Any], **judge: float) -> Path:
    """A file for the scripted provider."""
    lines = ["[judge]", *(f"{key} = {value}" for key, value in judge.items())]
    for candidate in candidates:
        lines += ["", "[[candidate]]", *(f"{key} = {_toml(value)}" for key, value in candidate.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_hypotheses(path: Path, *candidates: dict[str, Any]) -> Path:
    """A file for `--hypotheses` with the same questions as scripted candidates."""
    lines = []
    for candidate in candidates:
        kept = {key: value for key, value in candidate.items() if key not in ("pattern", "round")}
        lines += ["[[hypothesis]]", *(f"{key} = {_toml(value)}" for key, value in kept.items()), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)


def config_of(**options: Any) -> RunConfig:
    """A configuration with few permutations and no memory."""
    return make_config(**{"run": "planted", "n_permutations": 399, "memory": "off"} | options)


def workbench(recording: Recording, folder: Path, config: RunConfig, proposer: Proposer, judge: Judge) -> tuple[Workbench, list[Findings]]:
    """A workbench, and the list its findings are published to."""
    published: list[Findings] = []
    return Workbench(recording, config, folder, proposer, judge, publish=published.append), published


def scripted(folder: Path, *candidates: dict[str, Any], **judge: float) -> tuple[ScriptedProposer, ScriptedJudge]:
    """Scripted proposer and judge of the same file."""
    path = write_script(folder / "script.toml", *candidates, **judge)
    return ScriptedProposer.load(str(path)), ScriptedJudge.load(str(path))


def found(
    recording: Recording,
    folder: Path,
    *candidates: dict[str, Any],
    judge: Callable[[ScriptedJudge], Judge] = lambda scripted: scripted,
    errors: dict[str, float] | None = None,
    **options: Any,
) -> Findings:
    """The findings of a whole loop with scripted candidates, kept in memory only where it can be."""
    from agent.graph import run_loop

    proposer, reader = scripted(folder, *candidates, **(errors or {}))
    work, published = workbench(recording, folder, config_of(**options), proposer, judge(reader))
    run_loop(work)
    return published[-1]


def accepted(findings: Findings) -> list[str]:
    """Names of the accepted parameters."""
    return [p.parameter.name for p in findings.parameters if p.verdict == "accepted"]
