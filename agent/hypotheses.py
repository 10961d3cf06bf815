"""The user's own order parameters: read from TOML, tested before the agent's, in a family of their own (METHOD 4)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import ConfigError
from agent.records import OrderParameter


def load_hypotheses(path: str | None) -> list[OrderParameter]:
    """Read `[[hypothesis]]` tables: name, question, levels (lowest first); optional definition, direction, rule.

    Raises:
        ConfigError: The file cannot be read, or a table is wrong: which one, what was expected, what was found.
    """
    if path is None:
        return []
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--hypotheses {path}: expected a readable TOML file ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--hypotheses {path}: expected TOML, found {error}") from None
    tables = content.get("hypothesis")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"--hypotheses {path}: expected at least one [[hypothesis]] table, found {', '.join(content) or 'nothing'}")
    return [_hypothesis(table, f"--hypotheses {path}: hypothesis {k + 1}") for k, table in enumerate(tables)]


def _hypothesis(table: dict[str, Any], where: str) -> OrderParameter:
    for key in ("name", "question", "levels"):
        if key not in table:
            raise ConfigError(f"{where}: expected {key}, found {', '.join(table) or 'nothing'}")
    try:
        return OrderParameter(**{"definition": table["question"], **table, "origin": "human"})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {first['loc'][0]}: {first['msg'].lower()}, found {first.get('input')!r}") from None
