"""The report of a run: `findings.json` for programs, `report.md` and `report.html` for people, a ranked table for the terminal.

All of it is a pure function of :class:`agent.records.Findings`: no clock, no network, fixed element ids, so that `discover report RUN`
rebuilds the same bytes. Everything written by a subject, a proposer, a judge or a user is untrusted and escaped where it is shown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.records import Findings
from agent.report.findings_file import FILE_NAME, FindingsFileError, findings_bytes, parse_findings, read_findings

__all__ = ["FindingsFileError", "ReportPaths", "read_findings", "write_all"]


@dataclass(frozen=True)
class ReportPaths:
    """Where the three files of a report lie."""

    findings: Path
    markdown: Path
    html: Path


def write_all(findings: Findings, folder: Path) -> ReportPaths:
    """Write `findings.json`, `report.md` and `report.html` into `folder` (made when missing), each whole and renamed into place.

    The pages are made from the written bytes of `findings.json`, so a rebuild from that file gives the same bytes.

    Raises:
        FindingsFileError: a number in `findings` is NaN or infinite.
    """
    from agent.report.html import html_report  # plotly and jinja2 only when a page is written
    from agent.report.markdown import markdown_report

    data = findings_bytes(findings)
    findings = parse_findings(data)
    paths = ReportPaths(folder / FILE_NAME, folder / "report.md", folder / "report.html")
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(paths.findings, data)
    _write_whole(paths.markdown, markdown_report(findings).encode())
    _write_whole(paths.html, html_report(findings).encode())
    return paths


def _write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, flush to disk and rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
