"""All problems of the chosen cells, one after the other: solved (going on where an earlier run stopped), exported, or scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from agent.bench import Row, answered, solve
from agent.bench_cells import Cell
from agent.bench_files import export, external_row, read_external
from agent.bench_problems import Problem, problem, world
from agent.bench_rivals import RIVALS, rival_accepts
from agent.errors import ConfigError
from tracing.json_lines import append_lines, read_lines
from tracing.lock import run_lock

OURS = "discover"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchOptions:
    """What is benched.

    Attributes:
        cells: Kinds of problem.
        repeats: Problems in each.
        seed: Of the problems.
        n_permutations: Of each test of ours.
        rivals: Whether the three other rules run on them too.
    """

    cells: tuple[Cell, ...]
    repeats: int
    seed: int
    n_permutations: int
    rivals: bool = False

    @property
    def settings(self) -> dict[str, object]:
        """What rows must have in common to stand in one file."""
        return {"seed": self.seed, "n_permutations": self.n_permutations, "version": version("order-parameter-discovery")}


def problems(options: BenchOptions, skip: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """Every problem that is not skipped, cell by cell; a cell's population is made once."""
    for cell in options.cells:
        numbers = [r for r in range(options.repeats) if f"{cell.name}/{r:03d}" not in skip]
        population = world(cell, options.seed) if numbers else None
        for r in numbers:
            assert population is not None  # noqa: S101 - there are numbers
            yield problem(population, r, options.seed)


def solved(options: BenchOptions, out: Path | None, progress: Progress) -> list[Row]:
    """Our loop (and the rivals) on every problem.

    Args:
        options: What is benched.
        out: Folder in which every finished problem is kept at once, and looked for first; None keeps nothing.
        progress: Called with what is done, how many are, and how many there are.

    Returns:
        One row per tool and problem.

    Raises:
        ConfigError: `out` holds results of other settings.
    """
    if out is None:
        return [row for rows in _fresh(options, frozenset(), progress) for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    with run_lock(out):
        path = out / "results.jsonl"
        _check_settings(out, options)
        wanted = {f"{cell.name}/{r:03d}" for cell in options.cells for r in range(options.repeats)}
        tools = [OURS, *(RIVALS if options.rivals else [])]
        kept = {(row["problem"], row["tool"]): row for _, row in read_lines(path)} if path.exists() else {}
        done = frozenset(p for p in wanted if all((p, tool) in kept for tool in tools))
        rows = [kept[p, tool] for p in sorted(done) for tool in tools]
        for fresh in _fresh(options, done, progress):
            append_lines(path, fresh)
            rows += fresh
    return rows


def _check_settings(out: Path, options: BenchOptions) -> None:
    path = out / "settings.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != options.settings:
            raise ConfigError(f"--out {out}: holds results of {found}, found {options.settings}; choose another folder")
    else:
        path.write_text(json.dumps(options.settings) + "\n", encoding="utf-8")


def _fresh(options: BenchOptions, done: frozenset[str], progress: Progress) -> Iterator[list[Row]]:
    total = len(options.cells) * options.repeats
    count = len(done)
    progress("problems", count, total)
    for one in problems(options, done):
        rows = [{"tool": OURS} | solve(one, options.n_permutations)]
        if options.rivals:
            rows += [{"tool": name} | answered(one, accepted) for name, accepted in rival_accepts(one).items()]
        count += 1
        progress("problems", count, total)
        yield rows


def exported(options: BenchOptions, folder: Path, progress: Progress) -> int:
    """Write all problems for other tools; returns how many."""

    def shown() -> Iterator[Problem]:
        for count, one in enumerate(problems(options), 1):
            progress("problems", count, len(options.cells) * options.repeats)
            yield one

    return export(shown(), folder, options.seed)


def scored_external(options: BenchOptions, path: Path, progress: Progress) -> list[Row]:
    """Another tool's answers as rows.

    Raises:
        ConfigError: The file is wrong, or answers none of these problems.
    """
    tool, answers = read_external(path, options.seed)
    names = {f"{cell.name}/{r:03d}" for cell in options.cells for r in range(options.repeats)}
    if stray := sorted(set(answers) - names):
        raise ConfigError(f"--external {path}: no problem {stray[0]} among these (--repeats {options.repeats}, --only); see --list")
    rows = []
    for count, one in enumerate(problems(options, frozenset(names - set(answers))), 1):
        rows.append({"tool": tool} | external_row(one, answers[one.id], f"--external {path}"))
        progress("problems", count, len(answers))
    if not rows:
        raise ConfigError(f"--external {path}: expected answers to problems, found none")
    return rows
