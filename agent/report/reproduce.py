"""The command that made a run, rebuilt from its recorded configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from agent.config import RunConfig
from agent.records import Findings

# Options that name the input and the roles, then settings that stand in the command when they are not the default.
_OPTIONS = ("columns", "select", "before", "after", "split", "ends", "window", "proposer", "judge")
_SETTINGS = ("transition", "hypotheses", "rounds", "candidates", "alpha", "min_share", "min_change", "null", "null_runs")


def command_line(findings: Findings) -> str:
    """`discover --run …` with the options a reader must repeat, quoted for a POSIX shell."""
    config = dict(findings.config)
    if config.get("contrast") == "ends":
        config["ends"] = True
    words = ["discover", "--run", str(config.get("run") or findings.run), "--seed", str(findings.seed)]
    for name in _OPTIONS:
        words += _words(name, config.get(name))
    for name in _SETTINGS:
        if config.get(name) != RunConfig.model_fields[name].default:
            words += _words(name, config.get(name))
    if findings.review is not None:
        words.append("--review")
    return shlex.join(words)


def _words(name: str, value: Any) -> Iterator[str]:
    if value in (None, False, "", {}, [], ()):
        return
    yield f"--{name.replace('_', '-')}"
    if value is True:
        return
    if isinstance(value, Mapping):
        yield ",".join(f"{key}={entry}" for key, entry in value.items())
    elif isinstance(value, (list, tuple)):
        yield ",".join(str(entry) for entry in value)
    else:
        yield str(value)
