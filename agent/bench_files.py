"""Planted problems for other tools: written as JSONL of responses, and what a tool accepted on them read back and scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.bench import Row, answered
from agent.bench_problems import Problem
from agent.bench_rivals import readings
from agent.errors import ConfigError
from tracing.json_lines import append_lines

FORMAT, VERSION = "order-parameter-bench", 1
README = """# Planted problems

Written by `discover bench --export`. `problems.json` lists the problems with their candidates; each has one file with a JSON object per
response:

    {"prompt": "...", "completion": "...", "side": "before", "labels": {"m0": 3, "m1": null}}
    {"prompt": "...", "completion": "...", "step": 10, "logprob": {"0": -41.2, "10": -39.0}, "labels": {"m0": 3, "m1": null}}

the second kind where likelihoods are known: `logprob` is the log-probability of the response under each step. `labels` is the first
reading of every candidate by the problem's judge, with the judge's errors (null: it could not tell); the levels as they really are
stand in the text (`m0=3`). Levels are ordinal, 0 to 4. Which candidates have anything to do with the change is not written.

A tool answers with one JSON file, scored by `discover bench --external FILE` (with the same --seed, --repeats and --only):

    {"tool": "NAME", "seed": 0,
     "problems": {"base/000": {"accepted": ["m0", {"id": "m3", "share": 0.2, "low": 0.1, "high": 0.3}], "calls": 800, "seconds": 3.1}}}

`accepted` is in order of acceptance: a paraphrase after its original counts as a false acceptance. `share` is D[O]/D where likelihoods are
known and D[O] elsewhere, along a run (`run...`) between its first and last step; it, its 95% limits, `calls`, `seconds`, `tool`
and `seed` are optional. Problems that are not listed are not scored; one in which nothing is accepted is listed with `"accepted": []`.
"""
"""Written beside exported problems: what they are, and how a tool answers."""


def export(problems: Iterable[Problem], folder: Path, seed: int) -> int:
    """Write problems for other tools.

    Args:
        problems: What to write.
        folder: Where; made when missing.
        seed: What they were made with.

    Returns:
        How many were written.

    Raises:
        ConfigError: The folder cannot be written to or is not empty.
    """
    index = folder / "problems.json"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--export {folder}: expected a new or empty folder, found something there")
    entries = []
    try:
        for problem in problems:
            name = problem.id.replace("/", "__") + ".jsonl"
            append_lines(folder / name, _rows(problem))
            parameters = [c.parameter for c in problem.script.candidates]
            asked = [{"id": p.name, "question": p.question, "levels": list(p.levels), "direction": p.direction} for p in parameters]
            known = problem.world.cell.likelihoods
            entries.append({"id": problem.id, "file": name, "likelihoods": known, "candidates": asked})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(README, encoding="utf-8")
        content = {"format": FORMAT, "version": VERSION, "seed": seed, "problems": entries}
        index.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--export {folder}: expected a folder to write to ({error.strerror})") from None
    return len(entries)


def _rows(problem: Problem) -> Iterable[dict[str, Any]]:
    labels, r, scores = readings(problem), problem.recording.responses, problem.recording.log_likelihood
    for i in range(len(r)):
        row: dict[str, Any] = {"prompt": r.prompt[i], "completion": r.completion[i]}
        row |= {"side": r.side[i]} if r.side is not None else {}
        row |= {"step": int(r.step[i])} if r.step is not None else {}
        if scores is not None:
            row["logprob"] = {str(s): float(x) for s, x in zip(problem.recording.steps, scores[i], strict=True)}
        yield row | {"labels": {f"m{j}": None if level < 0 else int(level) for j, level in enumerate(labels[:, i])}}


def read_external(path: Path, seed: int) -> tuple[str, dict[str, dict[str, Any]]]:
    """What another tool accepted.

    Returns:
        Its name, and its answer by problem id.

    Raises:
        ConfigError: The file is not what `README` describes, or belongs to another seed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--external {path}: expected a readable file ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"--external {path}: expected JSON, found {error}") from None
    problems = content.get("problems") if isinstance(content, dict) else None
    if not isinstance(problems, dict) or not all(isinstance(p, dict) and isinstance(p.get("accepted"), list) for p in problems.values()):
        raise ConfigError(f'--external {path}: expected {{"problems": {{ID: {{"accepted": [...]}}}}}}')
    if content.get("seed", seed) != seed:
        raise ConfigError(f"--external {path}: made for --seed {content['seed']}, found --seed {seed}")
    return str(content.get("tool", path.stem)), problems


def external_row(problem: Problem, answer: Mapping[str, Any], where: str) -> Row:
    """Another tool's answer to a problem as a row like ours.

    Raises:
        ConfigError: It names a candidate the problem does not have.
    """
    number = {f"m{j}": j for j in range(len(problem.order))}
    given = [item if isinstance(item, dict) else {"id": item} for item in answer["accepted"]]
    unknown = [item.get("id") for item in given if item.get("id") not in number]
    if unknown:
        raise ConfigError(f"{where}: {problem.id}: expected candidates m0 to m{len(number) - 1}, found {unknown[0]!r}")
    last = problem.world.cell.n_steps - 1
    exact = problem.world.shares((0,), (last,))
    unit = exact.total if problem.world.cell.likelihoods else 1.0
    estimates = [
        {
            "quantity": "share",
            "of": item["id"],
            "accepted": True,
            "truth": exact.change([problem.order[number[item["id"]]]]) / unit if unit > 0 else None,
            **{key: _number(item.get(name), where) for key, name in (("estimate", "share"), ("low", "low"), ("high", "high"))},
        }
        for item in given
        if item.get("share") is not None
    ]
    row = answered(problem, [number[item["id"]] for item in given])
    return row | {"estimates": estimates, **{key: _number(answer.get(key), where) for key in ("calls", "seconds")}}


def _number(value: Any, where: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"{where}: expected a number, found {value!r}")
    return value
