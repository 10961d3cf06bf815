"""Templates for LLM roles: what is said once, the text, what is asked about it, each filled strictly on its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prompts import PromptError, Template, load

_HEADING = re.compile(r"^=== [a-z ]+ ===\n", re.MULTILINE)


@dataclass(frozen=True)
class Parts:
    """A template in its three parts.

    Attributes:
        name: The template's.
        system: What the role is told once.
        text: The untrusted text; first, so that a provider's cache of request beginnings serves every question about it.
        question: What is asked about it.
        sha256: Hash of the whole template.
    """

    name: str
    system: Template
    text: Template
    question: Template
    sha256: str

    @classmethod
    def load(cls, name: str) -> Parts:
        """Read `prompts/NAME.md`.

        Raises:
            PromptError: There is no such template, or it has not three parts.
        """
        whole = load(name)
        parts = _HEADING.split(whole.text)
        if len(parts) != 3:
            raise PromptError(f"template {name}: expected three parts divided by lines such as '=== the text ===', found {len(parts)}")
        system, text, question = (Template(name, part) for part in parts)
        return cls(name, system, text, question, whole.sha256)

    @property
    def digest(self) -> str:
        """First 8 hex digits of the hash: labels of another template are another judge's."""
        return self.sha256[:8]
