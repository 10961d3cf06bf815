"""Progress on the terminal (standard error): what the loop is doing, how far it is, how long it will take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agent.config import RunConfig
from agent.workbench import Progress as Report


def _bar(quiet: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )


@contextmanager
def shown_progress(config: RunConfig, quiet: bool) -> Iterator[Report]:
    """Progress of a discovery: rounds done, responses judged, what was accepted."""
    with _bar(quiet) as bar:
        task = bar.add_task("reading", total=config.rounds)
        judged = 0

        def report(name: str, numbers: dict[str, Any]) -> None:
            nonlocal judged
            if name == "asking":
                bar.stop()  # a question on the terminal
            elif name == "asked":
                bar.start()
            elif name == "contrast":
                bar.update(task, description=f"{numbers['before']} against {numbers['after']}")
            elif name == "proposed":
                bar.update(task, description=f"round {numbers['round']}: {numbers['candidates']} candidates")
            elif name == "judged":
                judged += numbers["responses"]
                bar.update(task, description=f"judged {judged} responses")
            elif name == "null":
                bar.update(task, description=f"null run {numbers['run']} of {numbers['runs']}")
            elif name == "decided":
                accepted = ", ".join(numbers["accepted"]) or "none"
                if not quiet:
                    line = f"round {numbers['round']}: {numbers['tested']} tested, accepted: {accepted}"
                    bar.console.print(line, highlight=False, markup=False, soft_wrap=True)  # one line however narrow the terminal or log
                bar.update(task, completed=numbers["round"], description="measuring")

        yield report


@contextmanager
def recording_progress(quiet: bool) -> Iterator[Any]:
    """Progress of a recording: `progress(phase, done, total)` per phase."""
    with _bar(quiet) as bar:
        tasks: dict[str, Any] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done, total=total)

        yield report
