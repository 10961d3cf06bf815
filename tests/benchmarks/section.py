"""One section of RESULTS.md: what was measured, by which command, on which machine, as a table."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """The machine and the versions that numbers depend on, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    processor = named.group(1) if named else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn", "torch"))
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}"


@dataclass(frozen=True)
class Section:
    """What one benchmark found.

    Attributes:
        title: Heading of the section.
        command: What to type to measure it again.
        columns: Headings of the table.
        rows: Cells of the table, formatted by the benchmark; as many in each row as there are columns.
        bar: What has to hold, and whether it did, in one line ("" when nothing has to).
        notes: Sentences below the table.
        machine: Where it was measured.
    """

    title: str
    command: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bar: str = ""
    notes: Sequence[str] = ()
    machine: str = field(default_factory=machine)

    def __post_init__(self) -> None:
        """Refuse a table whose rows do not fit its columns.

        Raises:
            ValueError: A row has another number of cells than there are columns.
        """
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} of {self.title!r}: expected {len(self.columns)} cells, found {len(row)}")

    def markdown(self) -> str:
        """The section as Markdown, without the markers that separate sections."""
        lines = [f"## {self.title}", "", f"`{self.command}`  ", f"{self.machine}", ""]
        lines += [_table_row(self.columns), _table_row(["---"] * len(self.columns)), *map(_table_row, self.rows)]
        for paragraph in filter(None, [self.bar, *self.notes]):
            lines += ["", paragraph]
        return "\n".join(lines)


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
