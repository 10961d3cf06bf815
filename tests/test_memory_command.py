from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.errors import MemoryStoreError
from agent.memory import Memory, MemoryEvent, Provenance
from agent.memory_command import memory_app
from agent.memory_events import EventKind
from agent.records import Estimate, OrderParameter

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("list", "show", "search", "export", "import", "forget", "rebuild", "verify")


def parameter(name: str, definition: str) -> OrderParameter:
    """A parameter with a five-word question."""
    return OrderParameter(
        name=name, definition=definition, question=f"How much {name} is there?", levels=("none", "some", "much"), direction=-1
    )


HEDGING = parameter("hedging", "How far claims are qualified.")
LISTS = parameter("list formatting", "How much stands in bullet points.")
GREED = parameter("greed", "Whether money comes first.")


def event(kind: EventKind, about: OrderParameter, run: str, share: float, reason: str = "") -> MemoryEvent:
    """A decision on a run."""
    return MemoryEvent(
        kind,
        about,
        provenance=Provenance(run=f"runs/{run}", run_digest=run * 8, subject=f"subject-{run}", contrast="ends", step=40),
        judge="embedded",
        shares={"share": Estimate(estimate=share, low=share - 0.05, high=share + 0.05, n=300)},
        reason=reason,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A memory with two accepted entries and a rejected one."""
    with Memory.open(tmp_path / "memory") as memory:
        memory.append(event("accepted", HEDGING, "a", 0.1))
        memory.append(event("accepted", LISTS, "a", 0.3))
        memory.append(event("rejected", GREED, "b", 0.2, "gain below min_share"))
    return tmp_path / "memory"


def call(*arguments: str) -> Result:
    """Run `discover memory ...`; what it prints to stdout and stderr is kept apart."""
    return CliRunner().invoke(memory_app, list(arguments))


def output(*arguments: str) -> str:
    """What a successful call prints to stdout."""
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def column(text: str, name: str) -> list[str]:
    """One column of the plain text a pipe gets."""
    header, *rows = [line.split("\t") for line in text.splitlines()]
    return [row[header.index(name)] for row in rows]


def test_list_is_ranked_and_filtered(folder: Path) -> None:
    """The largest share comes first; status, words and subject narrow the list, --limit cuts it."""
    where = ("--memory", str(folder))
    everything = output("list", *where)
    assert column(everything, "name") == ["list formatting", "greed", "hedging"]
    assert column(everything, "share")[0] == "0.30 [0.25, 0.35]"
    assert column(output("list", *where, "--status", "accepted"), "name") == ["list formatting", "hedging"]
    assert column(output("list", *where, "--status", "rejected", "--status", "vetoed"), "name") == ["greed"]
    assert column(output("list", *where, "--contains", "MONEY"), "name") == ["greed"]
    assert column(output("list", *where, "--subject", "subject-a"), "name") == ["list formatting", "hedging"]
    assert column(output("list", *where, "--sort", "name"), "name") == ["greed", "hedging", "list formatting"]
    assert column(output("list", *where, "--sort", "newest", "--limit", "2"), "name") == ["greed", "list formatting"]


def test_json_is_for_programs(folder: Path) -> None:
    """--json prints one JSON document and nothing else, with the shares and intervals of every run."""
    (first, *_) = json.loads(output("list", "--memory", str(folder), "--json"))
    assert first["id"] == LISTS.id
    assert first["runs"][0]["shares"]["share"] == {"estimate": 0.3, "low": 0.25, "high": 0.35, "n": 300, "note": ""}
    assert json.loads(output("show", GREED.id, "--memory", str(folder), "--json"))["reasons"] == ["gain below min_share"]
    (hit,) = json.loads(output("search", "bullet points", "-n", "1", "--memory", str(folder), "--json"))
    assert (hit["id"], hit["similarity"] > 0.3) == (LISTS.id, True)
    assert json.loads(output("verify", "--memory", str(folder), "--json"))["ok"] is True


def test_show_gives_words_scale_and_runs(folder: Path) -> None:
    """`show` takes the beginning of an id and prints question, anchored levels and each run's share."""
    text = output("show", HEDGING.id[:6], "--memory", str(folder))
    for part in ("How much hedging is there?", "level 2\tmuch", "falls", "0.10 [0.05, 0.15]", "runs/a", "subject-a", "40"):
        assert part in text


def test_search_takes_free_text(folder: Path) -> None:
    """The nearest entry comes first."""
    assert column(output("search", "money above all", "--memory", str(folder)), "name")[0] == "greed"


def test_forget_hides_and_says_what(folder: Path) -> None:
    """A forgotten entry leaves list and search; --status forgotten still shows that it was there."""
    assert f"forgotten: {GREED.id} greed" in output("forget", GREED.id, "--reason", "x", "--memory", str(folder))
    assert column(output("list", "--memory", str(folder)), "name") == ["list formatting", "hedging"]
    assert "greed" not in output("search", "money", "--memory", str(folder))
    assert column(output("list", "--status", "forgotten", "--memory", str(folder)), "name") == ["greed"]


def test_export_and_import_merge(folder: Path, tmp_path: Path) -> None:
    """An export read into another memory adds each event once; - writes it to stdout."""
    assert "3 events written" in output("export", str(tmp_path / "x.jsonl"), "--memory", str(folder))
    other = ("--memory", str(tmp_path / "other"))
    assert output("import", str(tmp_path / "x.jsonl"), *other) == "3 events added, 0 known already, 0 damaged lines left out\n"
    assert json.loads(output("import", str(tmp_path / "x.jsonl"), *other, "--json")) == {"added": 0, "known": 3, "damaged": []}
    assert output("export", "-", "--memory", str(folder)) == (tmp_path / "x.jsonl").read_text()


def test_verify_says_what_was_wrong(folder: Path) -> None:
    """A damaged line gives exit code 1 and its number; the index of what is left is whole."""
    path = folder / "ledger.jsonl"
    path.write_text(path.read_text().replace("bullet points", "bullet joints"))
    done = call("verify", "--memory", str(folder))
    assert done.exit_code == 1
    assert "2 events, 2 entries, 2 of them in the index" in done.stdout
    assert "line 3: its checksum does not fit its content" in done.stdout


def test_rebuild_builds_anew(folder: Path) -> None:
    """`rebuild` says how many entries it indexed with which embedder."""
    assert output("rebuild", "--memory", str(folder)).startswith("3 entries indexed with ngrams-")


@pytest.mark.parametrize(
    "arguments", [("show", "zzz"), ("forget", "zzz"), ("import", "missing.jsonl"), ("search", "x", "--embedder", "bert")]
)
def test_mistakes_are_one_line(folder: Path, arguments: tuple[str, ...]) -> None:
    """A wrong id, file or embedder is a MemoryStoreError of one line, which `discover` prints; nothing goes to stdout."""
    done = call(*arguments, "--memory", str(folder))
    assert isinstance(done.exception, MemoryStoreError)
    assert "\n" not in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    """The help of each command ends with an example that names it."""
    text = " ".join(output(command, "--help").split())
    assert f"Example: discover memory {command}" in text


def on_terminal(*arguments: str) -> str:
    """What `discover memory ...` shows on a real (pseudo) terminal of 140 columns."""
    main, other = pty.openpty()
    code = "from agent.memory_command import memory_app; memory_app()"
    environment = {**os.environ, "COLUMNS": "140", "TERM": "xterm", "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=other, stderr=other, env=environment, cwd=ROOT)
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux ends a pseudo terminal this way
            break
        if not part:
            break
        shown += part
    process.wait(timeout=60)
    os.close(main)
    return shown.decode()


@pytest.mark.slow
def test_a_terminal_gets_a_table_that_nothing_can_steer(tmp_path: Path) -> None:
    """On a terminal entries stand in a drawn table; control signs and markup in an LLM's words are shown harmless."""
    with Memory.open(tmp_path) as memory:
        memory.append(event("accepted", parameter("evil\x1b[2J [red]name[/red]\x07", "a\tb\nc"), "a", 0.2))
    shown = on_terminal("list", "--memory", str(tmp_path))
    assert "─────" in shown
    assert "evil[2J [red]name[/red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    piped = output("list", "--memory", str(tmp_path))
    assert "\x1b" not in piped
    assert len(piped.splitlines()) == 2, "one line per entry"


def test_an_empty_memory_says_how_to_fill_it(tmp_path: Path) -> None:
    """A newcomer's first `list` names the command that fills the memory; in a pipe there is just the header."""
    assert "discover --run PATH" in on_terminal("list", "--memory", str(tmp_path))
    assert output("list", "--memory", str(tmp_path)).count("\n") == 1
