"""The user's own order parameters: read from TOML, tested before the agent's, in a family of their own (METHOD 4)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import ConfigError
from agent.proposer import refusal_of
from agent.records import OrderParameter
from probes.rules import Rule, RuleError


def load_hypotheses(path: str | None) -> list[OrderParameter]:
    """Read `[[hypothesis]]` tables: name, question, levels (lowest first); optional definition, direction, rule.

    A hypothesis that was written down beforehand is never dropped silently: one that cannot be tested as it stands is refused
    here, before anything is spent.

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
    out: dict[str, OrderParameter] = {}
    for k, table in enumerate(tables):
        where = f"--hypotheses {path}: hypothesis {k + 1}"
        parameter = hypothesis_of(table, where)
        if parameter.id in out:
            raise ConfigError(f"{where}: asks the same as hypothesis {list(out).index(parameter.id) + 1}")
        out[parameter.id] = parameter
    return list(out.values())


def hypothesis_of(table: Any, where: str) -> OrderParameter:
    """One hypothesis from its fields; `where` says in errors which one it is.

    Raises:
        ConfigError: A field is missing or wrong, or it cannot be judged from one response.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, found {table!r}")
    for key in ("name", "question", "levels"):
        if key not in table:
            raise ConfigError(f"{where}: expected {key}, found {', '.join(table) or 'nothing'}")
    try:
        parameter = OrderParameter(**{"definition": table["question"], **table, "origin": "human"})
        n_levels = None if parameter.rule is None else len(Rule.from_dict(parameter.rule).thresholds) + 1
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}: {first['loc'][0]}: {first['msg'].lower()}, found {first.get('input')!r}") from None
    except RuleError as error:
        raise ConfigError(f"{where}: {error}") from None
    if n_levels is not None and n_levels != len(parameter.levels):
        raise ConfigError(f"{where}: expected {n_levels} levels, as the rule has, found {len(parameter.levels)}")
    if reason := refusal_of(parameter):
        raise ConfigError(f"{where}: {reason}")
    return parameter
