"""`discover memory`: look at what is remembered, search it, move it, mend it."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agent.memory import Memory, MemoryEntry
    from agent.records import Estimate

memory_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Order parameters found so far: list, search, exchange and mend them."
)


SHORT_ID = 8
"""Signs of an id a terminal shows in lists; every command takes the beginning of an id."""


class Status(StrEnum):
    """Values of `--status`."""

    accepted = "accepted"
    judged = "judged"
    proposed = "proposed"
    rejected = "rejected"
    reworded = "reworded"
    vetoed = "vetoed"
    forgotten = "forgotten"


class Order(StrEnum):
    """Values of `--sort`."""

    share = "share"
    newest = "newest"
    name = "name"


Where = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="DIR|URL", help="A folder, or http://host:port of a team's Chroma server.", show_default="data folder"
    ),
]
EmbedderName = Annotated[
    str | None,
    typer.Option("--embedder", metavar="NAME", help="ngrams, or st:NAME (sentence-transformers).", show_default="the index's own"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id from `discover memory list`, or the beginning of one.", show_default=False)]


@memory_app.command("list", epilog="Example: discover memory list --status accepted --sort share")
def list_entries(
    where: Where = None,
    status: Annotated[list[Status] | None, typer.Option("--status", help="Only these; may be given several times.")] = None,
    contains: Annotated[str, typer.Option("--contains", metavar="TEXT", help="Only those with this in name or definition.")] = "",
    subject: Annotated[str, typer.Option("--subject", metavar="TEXT", help="Only those seen on a subject with this in its name.")] = "",
    sort: Annotated[Order, typer.Option("--sort", help="Largest share first, newest first, or by name.")] = Order.share,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most this many.", show_default="all")] = None,
    as_json: AsJson = False,
) -> None:
    """List what is remembered, the largest share first."""
    wanted = {value.value for value in status or ()}
    with _opened(where) as memory:
        entries = [
            entry
            for entry in memory.entries(forgotten="forgotten" in wanted)
            if (not wanted or entry.status in wanted)
            and contains.casefold() in f"{entry.parameter.name}\n{entry.parameter.definition}".casefold()
            and (not subject or any(subject.casefold() in run.provenance.subject.casefold() for run in entry.runs))
        ]
    entries = sorted(entries, key=_ORDERS[sort])[:limit]
    if as_json:
        _print_json([entry.as_dict() for entry in entries])
    elif entries or not sys.stdout.isatty():
        _print_table(("id", "status", "share", "runs", "badge", "name", "definition"), [_row(entry) for entry in entries])
    else:
        typer.echo("Nothing is remembered yet: `discover --run PATH` fills the memory." if not wanted else "No entry fits.")


@memory_app.command(epilog="Example: discover memory show 3f2a")
def show(identifier: Id, where: Where = None, as_json: AsJson = False) -> None:
    """Show one order parameter: its words, its scale, and what each run said about it."""
    with _opened(where) as memory:
        entry = memory.entry(identifier)
    if as_json:
        _print_json(entry.as_dict())
        return
    _print_table(("field", "value"), _facts(entry))
    if entry.runs:
        typer.echo()
        _print_table(("run", "subject", "contrast", "step", "outcome", "share", "unique", "judge", "reason"), _run_rows(entry))


@memory_app.command(epilog='Example: discover memory search "gives medical advice without a warning"')
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Free text.", show_default=False)],
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="How many.")] = 10,
    where: Where = None,
    embedder: EmbedderName = None,
    as_json: AsJson = False,
) -> None:
    """Find the order parameters whose words are nearest to a text."""
    with _opened(where, embedder) as memory:
        hits = memory.search(text, number)
    if as_json:
        _print_json([{"similarity": hit.similarity, **hit.entry.as_dict()} for hit in hits])
    else:
        rows = [(f"{hit.similarity:.2f}", *_row(hit.entry)) for hit in hits]
        _print_table(("similarity", "id", "status", "share", "runs", "badge", "name", "definition"), rows)


@memory_app.command("export", epilog="Example: discover memory export memory.jsonl")
def export_events(
    path: Annotated[str, typer.Argument(metavar="FILE", help="JSONL file to write; - for stdout.", show_default=False)], where: Where = None
) -> None:
    """Write all events to a JSONL file that `discover memory import` merges elsewhere."""
    with _opened(where) as memory:
        number = memory.export(path)
    typer.echo(f"{number} events written to {path}", err=path == "-")


@memory_app.command("import", epilog="Example: discover memory import colleague.jsonl")
def import_events(
    path: Annotated[str, typer.Argument(metavar="FILE", help="JSONL file of an export, or another ledger.", show_default=False)],
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Merge an export into this memory, without duplicates."""
    with _opened(where) as memory:
        done = memory.import_(path)
    if as_json:
        _print_json({"added": done.added, "known": done.known, "damaged": [line.number for line in done.damaged]})
    else:
        typer.echo(f"{done.added} events added, {done.known} known already, {len(done.damaged)} damaged lines left out")


@memory_app.command(epilog='Example: discover memory forget 3f2a --reason "measures the prompt, not the answer"')
def forget(
    identifier: Id,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger.")] = "",
    where: Where = None,
) -> None:
    """Forget one order parameter; finding it anew brings it back."""
    with _opened(where) as memory:
        entry = memory.forget(identifier, reason)
    typer.echo(f"forgotten: {entry.id} {_clean(entry.parameter.name)}")


@memory_app.command(epilog="Example: discover memory rebuild --embedder st:all-MiniLM-L6-v2")
def rebuild(where: Where = None, embedder: EmbedderName = "ngrams") -> None:
    """Build the index anew from the ledger; this is also how its embedder is changed."""
    with _opened(where, embedder, rebuild=True) as memory:
        typer.echo(f"{len(memory)} entries indexed with {memory.embedder_id}")


@memory_app.command(epilog="Example: discover memory verify --json")
def verify(where: Where = None, embedder: EmbedderName = None, as_json: AsJson = False) -> None:
    """Check every ledger line and every index entry, mend the index; exit code 1 when something was wrong."""
    with _opened(where, embedder) as memory:
        found = memory.verify()
    if as_json:
        _print_json(
            {
                "ok": found.ok,
                "ledger": str(found.ledger),
                "events": found.events,
                "entries": found.entries,
                "indexed": found.indexed,
                "damaged": [{"line": line.number, "reason": line.reason} for line in found.damaged],
                "repaired": list(found.repaired),
            }
        )
    else:
        typer.echo(f"{found.ledger}: {found.events} events, {found.entries} entries, {found.indexed} of them in the index")
        for line in found.damaged:
            typer.echo(f"line {line.number}: {line.reason}")
        if found.repaired:
            typer.echo(f"{len(found.repaired)} index entries were missing or wrong and were mended")
        typer.echo("all well" if found.ok else "something was wrong, see above")
    if not found.ok:
        raise typer.Exit(1)


def _opened(where: str | None, embedder: str | None = None, *, rebuild: bool = False) -> Memory:
    from agent.memory import Memory

    return Memory.open(where, embedder, rebuild=rebuild)


def _by_share(entry: MemoryEntry) -> tuple[float, str]:
    share = entry.best_share
    return (1.0 if share is None or share.estimate is None else -share.estimate), entry.parameter.name.casefold()


def _by_newest(entry: MemoryEntry) -> tuple[int, ...]:
    return tuple(-ord(sign) for sign in entry.last_at)


def _by_name(entry: MemoryEntry) -> str:
    return entry.parameter.name.casefold()


_ORDERS: dict[Order, Callable[[MemoryEntry], Any]] = {Order.share: _by_share, Order.newest: _by_newest, Order.name: _by_name}


def _row(entry: MemoryEntry) -> tuple[str, ...]:
    parameter = entry.parameter
    return (
        entry.id,
        entry.status,
        _interval(entry.best_share),
        str(len(entry.runs)),
        parameter.badge,
        parameter.name,
        parameter.definition,
    )


def _facts(entry: MemoryEntry) -> list[tuple[str, str]]:
    parameter = entry.parameter
    direction = {1: "rises", -1: "falls", 0: "not predicted"}[parameter.direction]
    facts = [
        ("id", entry.id),
        ("status", entry.status),
        ("reviewer", entry.verdict or "has not looked"),
        ("name", parameter.name),
        ("definition", parameter.definition),
        ("question", parameter.question),
        *((f"level {number}", level) for number, level in enumerate(parameter.levels)),
        ("direction", direction),
        ("rule", json.dumps(parameter.rule, ensure_ascii=False) if parameter.rule else "none: an LLM judges it"),
        *((f"{role} template", digest) for role, digest in entry.templates.items()),
        *((f"labels by {judge or 'unnamed judge'}", f"{len(levels)} responses") for judge, levels in entry.labels.items()),
        *(("reason", reason) for reason in entry.reasons),
        ("reworded from", entry.reworded_from or ""),
        ("reworded to", entry.reworded_to or ""),
        ("first seen", entry.first_at),
        ("last seen", entry.last_at),
    ]
    return [(name, value) for name, value in facts if value]


def _run_rows(entry: MemoryEntry) -> list[tuple[str, ...]]:
    return [
        (
            run.provenance.run or run.provenance.run_digest[:12],
            run.provenance.subject,
            run.provenance.contrast,
            "" if run.provenance.step is None else str(run.provenance.step),
            run.status,
            _interval(run.shares.get("share")),
            _interval(run.shares.get("unique")),
            run.judge,
            run.reason,
        )
        for run in entry.runs
    ]


def _interval(share: Estimate | None) -> str:
    if share is None or share.estimate is None:
        return "-"
    limits = "" if share.low is None or share.high is None else f" [{share.low:.2f}, {share.high:.2f}]"
    return f"{share.note + ' ' if share.note else ''}{share.estimate:.2f}{limits}"


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A rich table on a terminal; one line per row, columns separated by tabs, in a pipe."""
    cleaned = [[_clean(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(columns), *cleaned]:
            typer.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in columns:
        if name != "definition":  # stands below the name
            table.add_column(name, no_wrap=name in ("id", "field", "share", "status", "badge"), overflow="fold")
    for row in cleaned:
        cells = dict(zip(columns, row, strict=True))
        if "definition" in cells:
            cells["id"] = cells["id"][:SHORT_ID]
            cells["name"] += "\n" + cells.pop("definition")
        table.add_row(*(Text(cell) for cell in cells.values()))
    Console().print(table)


def _clean(text: str) -> str:
    """On one line and without control signs: words come from an LLM and must not steer a terminal."""
    return "".join(sign for sign in " ".join(text.split()) if unicodedata.category(sign)[0] != "C")
