from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.cli import app, main
from agent.discovery import discover
from tests.planted_recordings import asks, config_of, planted, write_hypotheses, write_jsonl, write_run, write_script
from tests.test_house import HEAVY, ROOT
from tracing.lock import run_lock

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Typed:
    """Type a command in an empty folder; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["discover", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    folder = tmp_path_factory.mktemp("files")
    write_jsonl(folder / "sides.jsonl", planted(0, n_prompts=8, sides=("base", "tuned")))
    write_jsonl(folder / "three.jsonl", planted(0, n_prompts=8, n_each=3, sides=("a", "b")))
    with (folder / "three.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "Question 0?", "completion": "x", "side": "c"}) + "\n")
    write_jsonl(folder / "steps.jsonl", planted(0, n_prompts=8, n_each=4, likelihoods=False))
    write_jsonl(folder / "still.jsonl", planted(0, n_prompts=8, effects=(0.0,), hidden=0.02))
    write_run(folder / "run", planted(0, n_prompts=8))
    write_script(folder / "script.toml", asks("harm"), asks("hedge"))
    write_hypotheses(folder / "mine.toml", asks("harm"))
    (folder / "broken.jsonl").write_text('{"prompt": "a"\n', encoding="utf-8")
    (folder / "broken.toml").write_text("[[hypothesis]\n", encoding="utf-8")
    (folder / "empty.jsonl").write_text("", encoding="utf-8")
    (folder / "folder").mkdir()
    return folder


def scripted(files: Path) -> tuple[str, ...]:
    """Options for the scripted provider and no memory."""
    return ("--proposer", f"scripted:{files}/script.toml", "--judge", f"scripted:{files}/script.toml", "--memory", "off")


@pytest.fixture(scope="module")
def finished(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished discovery."""
    folder = tmp_path_factory.mktemp("finished")
    script = f"scripted:{files}/script.toml"
    discover(config_of(run=str(files / "sides.jsonl"), proposer=script, judge=script), folder)
    return folder


def one_line(err: str) -> str:
    """The only line of stderr, which must be ours."""
    assert err.count("\n") == 1, err
    assert err.startswith("discover: ")
    assert "Traceback" not in err
    return err


# help


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command below a group, groups included."""
    below = getattr(group, "commands", {})
    return [path, *(deeper for name in below for deeper in commands(below[name], (*path, name)))]


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(path: tuple[str, ...], typed: Typed) -> None:
    """`discover`, each command and each of its commands show how they are typed, and the example is of that command."""
    code, out, err = typed(*path, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: discover")
    assert " ".join(("discover", *path)) in out[out.index("Example") :]
    assert typed(*path, "-h")[1] == out


@pytest.mark.slow
def test_no_help_imports_what_takes_long() -> None:
    """Neither torch nor any other slow package is loaded by any command's help."""
    program = (
        "import sys, contextlib\nfrom agent.cli import main\n"
        f"for path in {COMMANDS!r}:\n"
        "    sys.argv = ['discover', *path, '--help']\n    with contextlib.suppress(SystemExit): main()\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(shown.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert loaded & (HEAVY | {"numpy", "scipy"}) == set()


def test_no_words_at_all_show_the_help(typed: Typed) -> None:
    """`discover` alone says what there is."""
    code, out, _ = typed()
    assert code == 0
    assert out == typed("--help")[1]


def test_the_version_is_the_installed_one(typed: Typed) -> None:
    """One line, name and number."""
    code, out, err = typed("--version")
    assert (code, err) == (0, "")
    assert out.split()[0] == "discover"
    assert out.count(".") == 2


# mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "expected an option or one of the commands "),
        (["run", "rows.jsonl"], "found 'run'; did you mean --run?"),
        (["rows.jsonl"], "found 'rows.jsonl'; to read rows.jsonl: discover --run rows.jsonl"),
        (["--runn", "x"], "No such option: --runn (Possible options: --rounds, --run) (see discover --help)"),
        (["--run"], "Option '--run' requires an argument (see discover --help)"),
        (["--rounds", "3"], "--rounds: expected --run PATH with it"),
        (["--json"], "--json: expected --run PATH with it"),
        (["--json", "report", "x"], "--json stands before the command report: expected a command's options after it"),
        (["report"], "Missing argument 'RUN' (see discover report --help)"),
        (["report", "nowhere"], "nowhere/findings.json: expected the findings of a finished run, found none"),
        (["report", "a", "b"], "Got unexpected extra argument(s) (b) (see discover report --help)"),
        (["organism"], "Missing option '--out' (see discover organism --help)"),
        (["memory", "frob"], "No such command 'frob' (see discover memory --help)"),
        (["--run", "x", "--seed", "one"], "Invalid value for '--seed': "),
        (["--run", "x", "--split", "1.5"], "Invalid value for '--split': "),
        (["--run", "x", "--rounds", "0"], "--rounds: input should be greater than or equal to 1, found 0"),
        (["--run", "x", "--alpha", "2"], "--alpha: input should be less than 1, found 2.0"),
        (["--run", "x", "--window", "0"], "--window: input should be greater than or equal to 1, found 0"),
        (["--run", "x", "--seed", "-1"], "--seed: input should be greater than or equal to 0, found -1"),
        (["--run", "x", "--null", "all"], "--null: input should be 'none', 'permute' or 'split', found 'all'"),
        (["--run", "x", "--columns", "prompt"], "--columns: expected NAME=VALUE, found 'prompt'"),
        (["--run", "x", "--select", "run=a,run=b"], "--select: run is given twice"),
        (["--run", "x", "--ends", "--split", "3"], "--before/--after, --split and --ends each choose the contrast: expected one of them"),
        (["--run", "x", "--ends", "--after", "b"], "--before/--after, --split and --ends each choose the contrast"),
        (["--run", "x", "--before", "a", "--split", "0"], "--before/--after, --split and --ends each choose the contrast"),
        (["--run", "nowhere.jsonl"], "--run nowhere.jsonl: expected a run directory or a file of responses, found nothing there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_typing_is_one_line(words: list[str], message: str, typed: Typed) -> None:
    """Whatever is mistyped: one line on stderr that names it, exit code 2, nothing on stdout."""
    code, out, err = typed(*words)
    assert message in one_line(err)
    assert (code, out) == (2, "")


@pytest.mark.parametrize(
    ("file", "words", "message"),
    [
        ("broken.jsonl", [], "broken.jsonl:1: expected "),
        ("empty.jsonl", [], "empty.jsonl"),
        ("folder", [], "folder: expected a run directory with manifest.json, found a folder without one"),
        ("script.toml", [], "expected a name ending in .jsonl"),
        ("sides.jsonl", ["--columns", "prompt=question"], "expected a column 'question'"),
        ("sides.jsonl", ["--select", "run=a"], "expected a column 'run' to select by"),
        ("run", ["--columns", "prompt=question"], "expected no --columns for a run directory"),
        ("three.jsonl", [], "sides a, b, c: which one is before and which after? Give --before NAME --after NAME"),
        ("three.jsonl", ["--before", "a"], "sides a, b, c: with which one is a compared? Give --after NAME"),
        ("sides.jsonl", ["--before", "bass"], "--before bass: expected one of the sides in the file (base, tuned)"),
        ("sides.jsonl", ["--before", "base", "--after", "base"], "--before and --after name the same side (base)"),
        ("sides.jsonl", ["--ends"], "--ends: expected steps along a run, found sides only"),
        ("sides.jsonl", ["--split", "1"], "--split: expected steps along a run, found sides only"),
        ("steps.jsonl", ["--split", "5"], "--split 5: expected a step inside the run (0, 1)"),
        ("steps.jsonl", ["--window", "2"], "--window 2: expected at most 1 for 2 checkpoints"),
        ("steps.jsonl", ["--before", "0", "--after", "7"], "--after 7: step 7 is not recorded (recorded: 0, 1)"),
        ("steps.jsonl", ["--before", "base", "--after", "1"], "--before base: expected steps such as 0 or 0,10,20"),
        ("sides.jsonl", ["--proposer", "gpt"], "--proposer gpt: expected embedded, scripted:FILE, anthropic:NAME, openai:NAME["),
        ("sides.jsonl", ["--judge", "scripted:none.toml"], "scripted:none.toml: expected a readable TOML file (No such file"),
        ("sides.jsonl", ["--hypotheses", "none.toml"], "--hypotheses none.toml: expected a readable TOML file (No such file"),
        ("sides.jsonl", ["--hypotheses", "{files}/broken.toml"], "broken.toml: expected TOML, found "),
        (
            "sides.jsonl",
            ["--hypotheses", "{files}/mine.toml", "--judge", "embedded"],
            "the embedded judge applies rules: expected rule = {kind",
        ),
        ("sides.jsonl", ["--out", "{files}/mine.toml"], "expected a folder to write to (File exists); choose one with --out DIR"),
    ],
)
def test_a_mistake_in_what_is_read_is_one_line(
    file: str, words: list[str], message: str, files: Path, typed: Typed, tmp_path: Path
) -> None:
    """Wrong contents, contrasts, providers, hypotheses and places: one line, exit code 2, and nothing is left behind."""
    code, out, err = typed("--run", files / file, "--memory", "off", *(word.format(files=files) for word in words))
    assert message in one_line(err)
    assert (code, out) == (2, "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_one_line(files: Path, typed: Typed, tmp_path: Path) -> None:
    """Another process works there: exit code 3, which says that waiting helps."""
    with run_lock(tmp_path):
        code, out, err = typed("--run", files / "sides.jsonl", "--out", tmp_path, *scripted(files))
    assert "expected to be the only process working here, found another one" in one_line(err)
    assert (code, out) == (3, "")


# what is shown


@pytest.mark.slow
def test_a_discovery_shows_its_table_and_where_the_report_is(files: Path, typed: Typed, tmp_path: Path) -> None:
    """Sentence, ranked table, contrast, cautions, report; typed again it is shown again, and --json prints findings.json byte for byte."""
    words = ("--run", files / "run", "--out", "out", *scripted(files))
    code, out, err = typed(*words)
    assert (code, err) == (0, "round 1: 2 tested, accepted: harm\n")
    lines = [line for line in out.splitlines() if line.strip()]
    assert lines[0].startswith("No transition stands out along the run")
    assert any("harm" in line and "accepted" in line for line in lines)
    assert any("hedge" in line and "rejected" in line for line in lines)
    assert "residual" in out
    assert "Total change" in out
    assert lines[-1] == "Report: out/report.html"
    code, again, _ = typed(*words)
    assert code == 0
    assert again == out.replace("Report:", "This discovery was finished earlier; --fresh runs it again.\nReport:")
    code, plain, err = typed(*words, "--json")
    assert (code, err) == (0, "")
    assert plain == (tmp_path / "out" / "findings.json").read_text(encoding="utf-8")
    assert json.loads(plain)["sentences"][-1].startswith("“harm” alone explains")


@pytest.mark.slow
def test_json_prints_nothing_else(files: Path, typed: Typed, tmp_path: Path) -> None:
    """Also when there is work to do: no progress, no table, one JSON document."""
    code, out, err = typed("--run", files / "sides.jsonl", "--out", "out", *scripted(files), "--json")
    assert (code, err) == (0, "")
    assert out == (tmp_path / "out" / "findings.json").read_text(encoding="utf-8")


def test_no_change_is_an_answer(files: Path, typed: Typed) -> None:
    """Nothing detectable: said in plain English with the size that would have been found, no share, exit code 0."""
    code, out, err = typed("--run", files / "still.jsonl", "--out", "out", *scripted(files))
    assert (code, err) == (0, "")
    assert "No change is detectable between step 0 and step 1 (D 0.0" in out
    assert "or more would have been found at this size." in " ".join(out.split())
    assert "accepted" not in out


def test_a_report_is_rebuilt_byte_for_byte(finished: Path, typed: Typed, tmp_path: Path) -> None:
    """`discover report` makes the same pages from findings.json alone, and shows the table or, with --json, findings.json."""
    pages = {name: (finished / name).read_bytes() for name in ("findings.json", "report.md", "report.html")}
    (tmp_path / "findings.json").write_bytes(pages["findings.json"])
    code, out, _ = typed("report", ".")
    assert code == 0
    assert "harm" in out
    assert out.endswith("Report: report.html\n")
    assert {name: (tmp_path / name).read_bytes() for name in pages} == pages
    assert typed("report", ".", "--json") == (0, pages["findings.json"].decode(), "")


@pytest.mark.slow
def test_a_terminal_without_the_characters_gets_question_marks(finished: Path) -> None:
    """Where quotation marks cannot be shown stands a question mark, and no traceback; --json is UTF-8 even there."""
    command = [sys.executable, "-c", "from agent.cli import main; main()", "report", str(finished)]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    shown, plain = (
        subprocess.run([*command, *more], capture_output=True, check=False, env=environment, cwd=ROOT) for more in ([], ["--json"])
    )
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"?harm? alone explains" in shown.stdout
    assert plain.stdout == (finished / "findings.json").read_bytes()
