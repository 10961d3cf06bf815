"""Tables of counts or probabilities of options, as CSV."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.choices import OTHER, ChoiceSet, Gathered
from agent.errors import ConfigError

if TYPE_CHECKING:
    from probes.finite_choice import Choice

OWN_COLUMNS = ("stage", "task", "phrasing", "option")
LISTED_COLUMNS = ("experiment", "model", "kind", "condition", "choice_probs")
PLAIN_CONDITIONS = ("", "unconditional")
LISTED_OPTIONS = {"coin_flip": ("heads", "tails")}


def read_counts(path: Path, stages: Mapping[str, str]) -> ChoiceSet:
    """Read a CSV table of counts or probabilities.

    Either one row per option: stage, task, phrasing, option, and count or probability (optional: subject, steered; an option "(other)"
    counts answers outside). Or one row per distribution: experiment, model, kind, condition, choice_probs (a JSON list); models are paired
    base with fine-tuned by their names unless `stages` says which model is which stage.

    Args:
        path: The file.
        stages: Name -> stage (or model) in the file, in order; empty: as they appear.

    Raises:
        ConfigError: The file is not as expected; the message names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: expected a readable CSV file, found {error}") from error
    if not rows:
        raise ConfigError(f"{path}: expected rows, found none")
    if set(LISTED_COLUMNS) <= set(columns):
        return _listed(path, rows, stages)
    if set(OWN_COLUMNS) <= set(columns) and len({"count", "probability"} & set(columns)) == 1:
        return _own(path, rows, stages, "count" in columns)
    wanted = f"{', '.join(OWN_COLUMNS)} and count or probability, or {', '.join(LISTED_COLUMNS)}"
    raise ConfigError(f"{path}: expected the columns {wanted}, found {', '.join(columns)}")


_Rows = Sequence[tuple[int, dict[str, str]]]


def _number(path: Path, line: int, text: str | None, whole: bool) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (whole and value != int(value)):
        raise ConfigError(f"{path}:{line}: expected {'a count' if whole else 'a probability'}, found {text!r}")
    return value


def _own(path: Path, rows: _Rows, stages: Mapping[str, str], counted: bool) -> ChoiceSet:
    options: dict[str, list[str]] = {}
    cells: dict[tuple[str, str, str, str], dict[str, float]] = {}
    steered: set[str] = set()
    for line, row in rows:
        if None in row or None in row.values():
            raise ConfigError(f"{path}:{line}: expected as many cells as columns, found another number")
        key = row.get("subject") or path.stem, row["stage"], row["task"], row["phrasing"]
        value = _number(path, line, row["count" if counted else "probability"], counted)
        if row["option"] in cells.setdefault(key, {}):
            raise ConfigError(f"{path}:{line}: expected each option once per stage, task and phrasing, found {row['option']!r} again")
        cells[key][row["option"]] = value
        if row["option"] != OTHER and row["option"] not in options.setdefault(row["task"], []):
            options[row["task"]].append(row["option"])
        if (row.get("steered") or "").strip().lower() in ("1", "true", "yes"):
            steered.add(row["phrasing"])
    renamed = _chosen_stages(path, [stage for _, stage, _, _ in cells], stages)
    gathered = Gathered({task: tuple(names) for task, names in options.items()})
    for (subject, stage, task, phrasing), values in cells.items():
        if stage in renamed:
            missing = [name for name in options[task] if name not in values]
            if missing and not counted:
                raise ConfigError(f"{path}: {stage}, {task}, {phrasing!r}: expected a probability of {missing[0]!r}, found none")
            gathered.add(subject, renamed[stage], task, phrasing, values, phrasing in steered, counted)
    return gathered.finished(tuple(renamed.values()), f"{path}")


def _chosen_stages(path: Path, there: Iterable[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Stage in the file -> its name here, in order."""
    found = list(dict.fromkeys(there))
    if unknown := [value for value in wanted.values() if value not in found]:
        raise ConfigError(f"{path}: expected the stages {', '.join(found)}, found --stages {unknown[0]!r}")
    chosen = {value: name for name, value in wanted.items()} or {stage: stage for stage in found}
    if len(chosen) < 2:
        raise ConfigError(f"{path}: expected at least two stages, found {', '.join(chosen)}")
    return chosen


# one row per distribution


def _listed(path: Path, rows: _Rows, stages: Mapping[str, str]) -> ChoiceSet:
    from probes.finite_choice import Choice

    listed = [_list(path, line, row["choice_probs"]) for line, row in rows]
    kinds = {row["model"]: row["kind"] for _, row in rows}
    if unknown := [model for model in stages.values() if model not in kinds]:
        raise ConfigError(f"{path}: expected one of the models {', '.join(kinds)}, found --stages {unknown[0]!r}")
    pairs, notes = ({list(stages.values())[-1]: dict(stages)}, ()) if stages else _paired(path, kinds)
    options: dict[str, tuple[str, ...]] = {}
    subjects: dict[str, list[Choice]] = {name: [] for name in pairs}
    for (line, row), probabilities in zip(rows, listed, strict=True):
        task = row["experiment"]
        known = options.setdefault(task, LISTED_OPTIONS.get(task, tuple(str(k + 1) for k in range(len(probabilities)))))
        if len(known) != len(probabilities):
            raise ConfigError(f"{path}:{line}: expected {len(known)} probabilities for {task}, found {len(probabilities)}")
        for subject, members in pairs.items():
            for stage, model in members.items():
                if model == row["model"]:
                    steered = row["condition"].strip().lower() not in PLAIN_CONDITIONS
                    subjects[subject].append(Choice(stage, task, row["condition"], probabilities, None, steered))
    order = tuple(stages) if stages else tuple(dict.fromkeys(stage for members in pairs.values() for stage in members))
    return ChoiceSet(subjects, options, order, notes)


def _list(path: Path, line: int, text: str | None) -> tuple[float, ...]:
    try:
        values = json.loads(text or "")
        return tuple(float(value) for value in values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}:{line}: expected choice_probs as a list of numbers, found {(text or '')[:60]!r}") from error


def _paired(path: Path, kinds: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Each fine-tuned model with the base of its maker whose name is most like its own."""
    bases = [model for model, kind in kinds.items() if kind == "base"]
    pairs = {}
    for model, kind in kinds.items():
        candidates = [base for base in bases if base.partition("_")[0] == model.partition("_")[0]]
        if kind != "base" and candidates:
            nearest = max(candidates, key=lambda base: difflib.SequenceMatcher(None, base, model).ratio())
            pairs[model] = {"base": nearest, kind: model}
    if not pairs:
        raise ConfigError(f"{path}: expected base and fine-tuned models of one maker, found none; say which with --stages base=…,sft=…")
    used = {model for members in pairs.values() for model in members.values()}
    notes = ["paired by name: " + "; ".join(f"{members['base']} -> {model}" for model, members in pairs.items())]
    if alone := [model for model in kinds if model not in used]:
        notes.append(f"without a partner, left out: {', '.join(alone)}")
    return pairs, tuple(notes)
