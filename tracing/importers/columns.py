"""Which column of a file plays which part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracing.errors import ImportFileError
from tracing.importers.table import Table, listed

PARTS = ("prompt", "completion", "messages", "step", "side", "system", "prompt_id", "response_id", "logprob", "scores", "run")
_OFTEN_CALLED = {
    "prompt": ("question", "instruction", "input", "query", "user_prompt"),
    "completion": ("response", "answer", "output", "generation", "generated_text", "reply", "text"),
    "step": ("checkpoint", "global_step", "training_step", "iteration"),
    "side": ("model", "variant", "condition", "stage", "group", "source", "label"),
}


class Columns:
    """The columns of a table by the part they play; remembers which were used.

    Args:
        table: The file.
        renamed: Part -> name in the file (dotted names reach into nested objects).

    Raises:
        ImportFileError: An unknown part is renamed, or a name is not in the file.
    """

    def __init__(self, table: Table, renamed: Mapping[str, str]) -> None:
        self.table = table
        self._renamed = dict(renamed)
        self._used: set[str] = set()
        for part, name in self._renamed.items():
            if part not in PARTS:
                raise ImportFileError(f"{table.path}: expected --columns to name one of {', '.join(PARTS)}, found {part!r}")
            if table.column(name) is None:
                raise table.file_error(f"a column {name!r} (--columns {part}={name})", f"the columns {listed(table.names)}")
        if len(set(self._renamed.values())) < len(self._renamed):
            both = ",".join(f"{part}={name}" for part, name in self._renamed.items())
            raise table.file_error("a different column for each part", f"--columns {both}")

    def name(self, part: str) -> str:
        """The name in the file of the column that plays `part`."""
        return self._renamed.get(part, part)

    def find(self, part: str) -> list[Any] | None:
        """The n raw values of the column that plays `part`; None when the file has none, or one without any value."""
        name = self.name(part)
        values = self.table.column(name)
        if values is None or all(value is None for value in values):
            return None
        if part not in ("prompt", "completion", "messages", "system") and all(self.table.missing(value) for value in values):
            return None
        self.use(name)
        return values

    def need(self, part: str, *others: str) -> ImportFileError:
        """The error for a file in which nothing plays `part` (nor any of `others`)."""
        wanted = " or ".join(repr(self.name(name)) for name in (part, *others))
        guesses = ((name, often) for name in (part, *others) for often in _OFTEN_CALLED.get(name, ()) if often in self.table.names)
        name, guess = next(guesses, (part, "NAME"))
        if len(self.table.names) == 1 and not self.table.typed:
            return self.table.file_error(f"a column {wanted}, separated by commas", f"the one column {self.table.names[0][:60]!r}")
        present = " without any value" if self.table.column(self.name(part)) is not None else ""
        hint = f"; every value of {self.name(part)!r} is missing" if present else f"; name it with --columns {name}={guess}"
        return self.table.file_error(f"a column {wanted}", f"the columns {listed(self.table.names)}{hint}")

    def use(self, name: str) -> None:
        """Remember that the column holding `name` was used."""
        self._used.add(self.table.root(name) or name)

    def unused(self) -> Sequence[str]:
        """Columns of the file that nothing asked for."""
        return [name for name in self.table.names if name not in self._used]
