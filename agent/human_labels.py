"""Levels that people gave (`--human-labels FILE.csv`): they measure the judge and decide nothing.

    parameter,response_id,level,rater      # rater is optional; an empty level: this person could not tell
    harm,step-000120-7,3,ann
    harm,step-000120-9,,ann

`parameter` is a name, a question or an id as the report has them; responses are named by `response_id`, or by `prompt` and `completion`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import ConfigError
from agent.records import OrderParameter
from tracing.responses import Responses

NEEDED = ("parameter", "level")
ONE_PERSON = "human"


@dataclass(frozen=True)
class HumanLabel:
    """One line of the file: who gave which level to which rows of the recording (several where a text stands for its repetitions)."""

    line: int
    parameter: str
    rater: str
    rows: tuple[int, ...]
    level: int


@dataclass(frozen=True)
class HumanLabels:
    """All labels of a file.

    Attributes:
        path: The file.
        digest: Hash of its content.
        labels: Its lines, in order.
        strangers: Lines about responses that are not in the recording.
    """

    path: str
    digest: str
    labels: tuple[HumanLabel, ...]
    strangers: int = 0
    _by_name: dict[str, list[HumanLabel]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the lines by parameter."""
        for label in self.labels:
            self._by_name.setdefault(_plain(label.parameter), []).append(label)

    def of(self, parameter: OrderParameter) -> dict[str, dict[int, int]]:
        """Levels by rater and row of the recording, -1 where a person could not tell.

        Raises:
            ConfigError: A level beyond the parameter's scale, or two levels by one person for one response.
        """
        out: dict[str, dict[int, int]] = {}
        names = dict.fromkeys(map(_plain, (parameter.id, parameter.name, parameter.question)))
        for label in (label for name in names for label in self._by_name.get(name, ())):
            where = f"--human-labels {self.path}:{label.line}"
            if label.level >= len(parameter.levels):
                top = len(parameter.levels) - 1
                raise ConfigError(f"{where}: expected a level from 0 to {top} of {parameter.name!r}, found {label.level}")
            given = out.setdefault(label.rater, {})
            if twice := {given[row] for row in label.rows if row in given} - {label.level}:
                raise ConfigError(f"{where}: {label.rater} gave two levels to one response ({min(twice)} and {label.level})")
            given.update(dict.fromkeys(label.rows, label.level))
        return out

    def unused(self, parameters: Sequence[OrderParameter]) -> list[str]:
        """Names in the file that none of these parameters has."""
        known = {_plain(text) for p in parameters for text in (p.id, p.name, p.question)}
        return [labels[0].parameter for name, labels in self._by_name.items() if name not in known]


def load_human_labels(path: str, responses: Responses) -> HumanLabels:
    """Read a file of labels.

    Raises:
        ConfigError: It cannot be read, a column is missing, a level is none, or no line is about these responses.
    """
    where = f"--human-labels {path}"
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{where}: expected a readable CSV file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: expected a CSV file in UTF-8, found other bytes") from None
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    columns = list(reader.fieldnames or ())
    lacking = [name for name in NEEDED if name not in columns]
    if lacking or not ("response_id" in columns or {"prompt", "completion"} <= set(columns)):
        found = ", ".join(columns) or "none"
        raise ConfigError(f"{where}: expected the columns parameter, level and response_id (or prompt and completion), found {found}")
    rows = _rows_by_name(responses)
    labels, strangers = [], 0
    try:
        for row in reader:
            label = _label(row, reader.line_num, rows, where)
            strangers += label is None
            labels += [label] if label else []
    except csv.Error as error:
        raise ConfigError(f"{where}:{reader.line_num}: expected CSV, found {error}") from None
    if not labels:
        raise ConfigError(f"{where}: expected labels of responses in this recording, found {strangers} of others")
    return HumanLabels(path, hashlib.sha256(data).hexdigest(), tuple(labels), strangers)


def _rows_by_name(responses: Responses) -> dict[tuple[str, ...], tuple[int, ...]]:
    out: dict[tuple[str, ...], tuple[int, ...]] = {(name,): (row,) for row, name in enumerate(responses.response_id)}
    for row, text in enumerate(zip(responses.prompt, responses.completion, strict=True)):
        out[text] = (*out.get(text, ()), row)
    return out


def _label(row: Mapping[str, str | None], line: int, rows: Mapping[tuple[str, ...], tuple[int, ...]], where: str) -> HumanLabel | None:
    name, level = (row.get("parameter") or "").strip(), (row.get("level") or "").strip()
    if not name:
        raise ConfigError(f"{where}:{line}: expected a parameter, found none")
    if level and not (level.isascii() and level.isdigit() and len(level) <= 2):
        raise ConfigError(f"{where}:{line}: expected a level as a whole number from 0, or nothing, found {level!r}")
    wanted = (row["response_id"] or "",) if row.get("response_id") else (row.get("prompt") or "", row.get("completion") or "")
    if wanted not in rows:
        return None
    return HumanLabel(line, name, (row.get("rater") or "").strip() or ONE_PERSON, rows[wanted], int(level) if level else -1)


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()
