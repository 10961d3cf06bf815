"""RESULTS.md: sections between markers, so that one benchmark's numbers are replaced without touching the others'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

HEADER = """# Results of the benchmarks

Written by `make bench`; `make bench ONLY=name` measures one again and leaves the others as they are. Do not edit by hand.
"""
_SECTION = re.compile(r"<!-- begin (?P<name>\w+) -->\n(?P<body>.*?)\n<!-- end (?P=name) -->", re.DOTALL)


def read_sections(path: Path) -> dict[str, str]:
    """Name and Markdown of every section in the file, in its order; empty when there is no file."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {found["name"]: found["body"] for found in _SECTION.finditer(text)}


def replace_sections(path: Path, fresh: Mapping[str, str]) -> None:
    """Write the file with these sections new and all others kept, sorted by name; whole, then renamed into place."""
    sections = read_sections(path) | dict(fresh)
    bodies = [f"<!-- begin {name} -->\n{sections[name]}\n<!-- end {name} -->\n" for name in sorted(sections)]
    partial = path.with_suffix(".md.partial")
    partial.write_text("\n".join([HEADER, *bodies]), encoding="utf-8")
    partial.replace(path)
