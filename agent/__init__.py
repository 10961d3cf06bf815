"""The loop a researcher runs: read responses, propose order parameters, judge, measure, decide, report.

Start with `agent/graph.py` (the loop on one screen) and `agent/nodes.py` (what each box does).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.notebook import LoadedFindings

__all__ = ["load"]


def load(run: str | Path) -> LoadedFindings:
    """The findings of a finished discovery, for notebooks and scripts: numbers, tables, figures, and a rich display.

    Args:
        run: Folder of the discovery, or its `findings.json`.

    Raises:
        FindingsFileError: There are no findings, or they cannot be read.
    """
    from agent.notebook import LoadedFindings

    return LoadedFindings.read(Path(run))
