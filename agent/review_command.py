"""`discover review RUN`: the report with a reviewer's decisions on it, and a blinded labelling queue, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
\b
Examples:
  discover --run runs/organism --review
  discover review runs/organism
"""


def review(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a discovery: it has a findings.json.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; default: a free one.")] = 0,
    reviewer: Annotated[str, typer.Option("--reviewer", metavar="NAME", help="Written beside every decision.")] = "",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Read the report, accept, veto, reword, add hypotheses, and label responses blind; decisions are kept in review.jsonl.

    Serves on this machine only (127.0.0.1), to whoever has the printed address with its random token.
    """
    if serve_review(folder, port, reviewer, open_browser):
        typer.echo(f"The review is kept in {folder / 'review.jsonl'}. The loop takes it in with: {_goes_on(folder)}")
    else:
        typer.echo(f"Not done yet; what was decided is kept. To go on: discover review {folder}")


def serve_review(folder: Path, port: int = 0, reviewer: str = "", open_browser: bool = False) -> bool:
    """Serve a review until it is done or Ctrl-C; returns whether it is done.

    Raises:
        FindingsFileError: No findings there.
        ConfigError: The port is taken.
        RunLockedError: Another review is open on this folder.
    """
    from agent.marker import awaits_review, read_marker
    from agent.report import read_findings
    from agent.review.server import ReviewServer

    discovery = (read_marker(folder) or [read_findings(folder).run_digest])[0]
    server = ReviewServer(folder, discovery, port, reviewer, awaits_review(folder))

    def announce(address: str) -> None:
        typer.echo(f"Review: {address}\n(on this machine only; Ctrl-C closes it and loses nothing)")
        if open_browser:
            import webbrowser

            webbrowser.open(address)

    return server.run(announce)


def _goes_on(folder: Path) -> str:
    from agent.report import read_findings
    from agent.report.reproduce import command_line

    command = command_line(read_findings(folder))
    return command if "--review" in command.split() else f"{command} --review"
