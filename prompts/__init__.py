"""Plain-English texts: what proposer and judge are asked (Markdown templates in this folder).

A template is a Markdown file with variables in double braces, `{{question}}`. It is filled strictly, in one pass: every
variable must be given, none may be given in vain, and braces inside a value stay text, so that an untrusted response
cannot reach a variable. The hash of a template's bytes is stored with every label it led to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prompts.errors import PromptError, TemplateNotFoundError, TemplateVariableError

__all__ = ["PromptError", "Template", "TemplateNotFoundError", "TemplateVariableError", "hashes", "load"]

FOLDER = Path(__file__).resolve().parent
_VARIABLE = re.compile(r"\{\{ {0,4}([a-z][a-z0-9_]{0,40}) {0,4}\}\}")


@dataclass(frozen=True)
class Template:
    """A text with variables.

    Attributes:
        name: File name without `.md`.
        text: As it stands in the file.
    """

    name: str
    text: str

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables in the text."""
        return frozenset(_VARIABLE.findall(self.text))

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the text in UTF-8: two labels are comparable only if it is the same."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, values: Mapping[str, str] | None = None, /, **more: str) -> str:
        """The text with every variable replaced, in one pass: what stands in a value is never read as a variable.

        Args:
            values: Values by variable.
            more: The same, as keywords; a name given both ways counts as given twice.

        Raises:
            TemplateVariableError: A variable is missing, unused or given twice.
        """
        values = values or {}
        given = {**values, **more}
        if given.keys() != self.variables or values.keys() & more.keys():
            raise TemplateVariableError(self._wrong(values, more))
        return _VARIABLE.sub(lambda match: given[match.group(1)], self.text)

    def _wrong(self, values: Mapping[str, str], more: Mapping[str, str]) -> str:
        given = set(values) | set(more)
        faults = {"missing": self.variables - given, "unused": given - self.variables, "given twice": set(values) & set(more)}
        wrong = "; ".join(f"{fault}: {', '.join(sorted(names))}" for fault, names in faults.items() if names)
        return f"template {self.name}: {wrong} (it uses: {', '.join(sorted(self.variables)) or 'nothing'})"


def load(name: str, folder: Path = FOLDER) -> Template:
    r"""The template `name` (no suffix), read as UTF-8 with line ends as `\n`, so that its hash is the same on every system.

    Raises:
        TemplateNotFoundError: There is none of that name.
    """
    path = folder / f"{name}.md"
    if not re.fullmatch(r"[a-z0-9_]+", name) or not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.md"))) or "none"
        raise TemplateNotFoundError(f"template {name!r} not found in {folder}; known: {known}")
    return Template(name, path.read_text(encoding="utf-8"))


def hashes(folder: Path = FOLDER) -> dict[str, str]:
    """sha256 of every template in the folder, by name, in order of names."""
    return {path.stem: load(path.stem, folder).sha256 for path in sorted(folder.glob("*.md"))}
