"""`discover doctor`: which providers work here."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from agent.errors import ConfigError

EXAMPLES = """
\b
Examples:
  discover doctor
  discover doctor openai:NAME@http://127.0.0.1:8000/v1 --ask
  discover doctor anthropic:NAME hf:/models/small batch:requests --json
"""
SHOWN = 8
"""Models named on a terminal."""


def doctor(
    providers: Annotated[list[str] | None, typer.Argument(metavar="[PROVIDER]...", help="As for --judge; default: every kind.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Put one small request to each named provider; may cost a little.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Until a server counts as not reachable.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Say which providers work, with what models, and what each lacks. Exit code 1 when a named one does not work."""
    from agent.doctor import check, check_all

    if not 0 < timeout < float("inf"):
        raise ConfigError(f"--timeout: expected a positive number of seconds, found {timeout:g}")
    if ask and not providers:
        raise ConfigError("--ask: expected the providers to ask by name, found none")
    found = [check(spec, timeout, ask) for spec in providers] if providers else list(check_all(timeout))
    if as_json:
        typer.echo(json.dumps([one.plain() for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            typer.echo(f"{'works' if one.works else 'lacks':<7}{one.provider}" + (f"  ({one.uses})" if one.uses else ""))
            if one.models:
                more = f" and {len(one.models) - SHOWN:,} more" if len(one.models) > SHOWN else ""
                typer.echo(f"       models: {', '.join(one.models[:SHOWN])}{more}")
            if one.answered:
                typer.echo(f"       answered: {one.answered}")
            for lack in one.lacks:
                typer.echo(f"       lacks {lack}")
    if providers and not all(one.works for one in found):
        sys.stdout.flush()
        raise typer.Exit(1)
