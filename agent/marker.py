"""Which discovery a folder holds: `discovery.txt`, a digest and a state."""

from __future__ import annotations

import re
from pathlib import Path

MARKER = "discovery.txt"


def read_marker(folder: Path) -> list[str]:
    """Digest and state (`started`, `review`, `finished`) of the discovery a folder holds; empty when there is none of ours."""
    path = folder / MARKER
    marker = path.read_text(encoding="utf-8", errors="replace").split() if path.exists() else []
    return marker if len(marker) == 2 and re.fullmatch(r"[0-9a-f]{64}", marker[0]) else []


def awaits_review(folder: Path) -> bool:
    """Whether the discovery of a folder has stopped for a reviewer."""
    return read_marker(folder)[1:] == ["review"]
