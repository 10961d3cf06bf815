"""How much the joint share depends on choices: other windows, the first tokens only, one prompt left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.records import Findings

_TABLES = {"joint_share_by_window": "window L = {}", "joint_share_of_first_tokens": "first {} tokens only"}
_PROMPTS = "joint_share_without_one_prompt"


@dataclass(frozen=True)
class Choice:
    """One other choice and what the numbers become under it.

    Attributes:
        what: The choice in words; untrusted where it names a prompt.
        change: D under it, None when it was not computed.
        joint_share: Joint share of the accepted set under it.
    """

    what: str
    change: float | None
    joint_share: float | None


def choices(findings: Findings) -> tuple[list[Choice], dict[str, Any]]:
    """The entries of `findings.sensitivity` that can be read as choices, and what is left over for readers of JSON."""
    read: list[Choice] = []
    left: dict[str, Any] = {}
    for name, entry in findings.sensitivity.items():
        found = list(_choices(name, entry, findings.prompts)) if isinstance(entry, dict) else []
        if found:
            read += found
        else:
            left[name] = entry
    return read, left


def _choices(name: str, entry: dict[str, Any], prompts: dict[str, str]) -> Iterator[Choice]:
    if name in _TABLES:
        for key, values in entry.items():
            if isinstance(values, dict):
                yield Choice(_TABLES[name].format(key), _number(values.get("change")), _number(values.get("joint_share")))
    if name == _PROMPTS:
        for end in ("lowest", "highest"):
            if _number(entry.get(end)) is not None:
                prompt = str(entry.get(f"without_for_{end}", "?"))
                yield Choice(f"{end} without one prompt: {prompts.get(prompt, prompt)}", None, _number(entry[end]))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
