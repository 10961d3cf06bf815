"""Tasks of finite random choices: a few options, several phrasings each. Ours lie in `prompts/questions/random/`, one TOML file a task."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from prompts import FOLDER

OUR_TASKS = FOLDER / "questions" / "random"
_FIELDS = {"purpose", "provenance", "plain", "steered", "options"}


@dataclass(frozen=True)
class RandomTask:
    """One task.

    Attributes:
        name: File name without `.toml`.
        purpose, provenance: Why it is asked, and where its words come from.
        options: Spellings by option.
        plain: Phrasings that ask without pushing anywhere.
        steered: Phrasings that push towards some options ("the coin is loaded").
    """

    name: str
    purpose: str
    provenance: str
    options: dict[str, tuple[str, ...]]
    plain: tuple[str, ...]
    steered: tuple[str, ...] = ()

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All of them, the plain ones first."""
        return self.plain + self.steered


def load_tasks(path: Path | None = None) -> tuple[RandomTask, ...]:
    """Read the tasks of a folder (or of one file) in the order of names; ours when no path is given.

    Raises:
        ConfigError: Nothing is there, or a file is not as it should be.
    """
    path = OUR_TASKS if path is None else path
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ConfigError(f"{path}: expected TOML files with tasks, found none")
    return tuple(_read(file) for file in files)


def _read(file: Path) -> RandomTask:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: expected a task in TOML, found something else ({error})") from error
    if unknown := sorted(set(content) - _FIELDS):
        raise ConfigError(f"{file}: expected only {', '.join(sorted(_FIELDS))}, found also {', '.join(unknown)}")
    options = content.get("options")
    if not isinstance(options, dict) or len(options) < 2:
        raise ConfigError(f"{file}: expected at least two [options], found {len(options) if isinstance(options, dict) else 'none'}")
    spelled = {name: _texts(file, f"options.{name}", spellings) for name, spellings in options.items()}
    _check_apart(file, spelled)
    plain, steered = _texts(file, "plain", content.get("plain")), _texts(file, "steered", content.get("steered", []), least=0)
    if len(set(plain + steered)) < len(plain + steered):
        raise ConfigError(f"{file}: expected different phrasings, found one twice")
    return RandomTask(file.stem, str(content.get("purpose", "")), str(content.get("provenance", "")), spelled, plain, steered)


def _texts(file: Path, name: str, value: Any, least: int = 1) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < least or not all(isinstance(text, str) and text.strip() for text in value):
        raise ConfigError(f"{file}: expected {name} as a list of texts, found {str(value)[:60]}")
    return tuple(value)


def _check_apart(file: Path, options: dict[str, tuple[str, ...]]) -> None:
    """No spelling belongs to two options, nor is one a first word of another: an answer must mean one option."""
    owners = [(spelling.casefold(), name) for name, spellings in options.items() for spelling in spellings]
    for spelling, name in owners:
        for other, owner in owners:
            if name != owner and (spelling == other or (other.startswith(spelling) and not other[len(spelling)].isalnum())):
                raise ConfigError(
                    f"{file}: expected options that can be told apart, found {spelling!r} of {name!r} in {other!r} of {owner!r}"
                )
