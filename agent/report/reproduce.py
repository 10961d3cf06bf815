"""The command that made a run, rebuilt from its recorded configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from agent.records import Findings

# Options that name the input and the roles; every other setting stands in the configuration printed whole beside the command.
_OPTIONS = ("columns", "select", "before", "after", "split", "ends", "window", "proposer", "judge")


def command_line(findings: Findings) -> str:
    """`discover --run …` with the options a reader must repeat, quoted for a POSIX shell."""
    words = ["discover", "--run", str(findings.config.get("run") or findings.run), "--seed", str(findings.seed)]
    for name in _OPTIONS:
        words += _words(name, findings.config.get(name))
    return shlex.join(words)


def _words(name: str, value: Any) -> Iterator[str]:
    if value in (None, False, "", {}, [], ()):
        return
    yield f"--{name}"
    if value is True:
        return
    if isinstance(value, Mapping):
        yield ",".join(f"{key}={entry}" for key, entry in value.items())
    elif isinstance(value, (list, tuple)):
        yield ",".join(str(entry) for entry in value)
    else:
        yield str(value)
