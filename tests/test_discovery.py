from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent.config import RunConfig
from agent.discovery import OUTPUTS, discover
from agent.errors import ConfigError, ContrastError, RunLockedError
from agent.marker import MARKER
from agent.memory import Memory
from agent.report import read_findings
from tests.planted_recordings import accepted, asks, config_of, planted, write_hypotheses, write_jsonl, write_run, write_script
from tracing.lock import run_lock


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of responses, a run directory, a script and hypotheses; tests copy what they write into."""
    folder = tmp_path_factory.mktemp("files")
    write_jsonl(folder / "rows.jsonl", planted(0, n_prompts=8, sides=("base", "tuned")))
    write_run(folder / "run", planted(0, n_prompts=8))
    write_script(folder / "script.toml", asks("harm"), asks("hedge"))
    write_hypotheses(folder / "mine.toml", asks("harm"))
    return folder


def config(files: Path, run: str = "run", **options: Any) -> RunConfig:
    """A discovery with the scripted provider."""
    provider = f"scripted:{files / 'script.toml'}"
    return config_of(**{"run": str(files / run), "proposer": provider, "judge": provider, "n_permutations": 199} | options)


@pytest.fixture(scope="module")
def finished(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished discovery; tests that go on with it copy it."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    discover(config(files), folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, but for the databases' own bookkeeping."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and ".sqlite" not in p.name and p.name != "run.lock")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.mark.slow
def test_a_file_gets_a_folder_and_a_run_directory_takes_its_results_in(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results about a file go to discoveries/NAME-DIGEST here; a run directory takes its own in and is otherwise left alone."""
    monkeypatch.chdir(tmp_path)
    findings, folder, before = discover(config(files, "rows.jsonl"))
    assert (accepted(findings), before) == (["harm"], False)
    assert folder.parent == Path("discoveries")
    assert folder.name.startswith("rows-")
    shutil.copytree(files / "run", tmp_path / "run")
    recorded = contents(tmp_path / "run")
    findings, folder, _ = discover(config(tmp_path, "run", proposer=f"scripted:{files}/script.toml", judge=f"scripted:{files}/script.toml"))
    assert accepted(findings) == ["harm"]
    assert folder == tmp_path / "run"
    after = contents(folder)
    assert {name: after[name] for name in recorded} == recorded
    assert {"config.toml", "findings.json", "report.html", "report.md", "candidates.jsonl", MARKER} <= set(after) - set(recorded)


def test_a_finished_discovery_is_shown_and_not_run_again(files: Path, finished: Path, tmp_path: Path) -> None:
    """The same question again: the same findings, nothing computed, nothing written."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    first = read_findings(finished)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name not in ("run.lock",)}
    seen: list[str] = []
    again, folder, before = discover(config(files), tmp_path, progress=lambda name, numbers: seen.append(name))
    assert (again, folder, before) == (first, tmp_path, True)
    assert seen == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name not in ("run.lock",)} == written


@pytest.mark.slow
def test_other_options_keep_the_earlier_discovery(files: Path, finished: Path, tmp_path: Path) -> None:
    """What was found before lies whole under earlier/, byte for byte, and judgements made then are not asked for again."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    kept = contents(tmp_path)
    seen: list[dict[str, Any]] = []
    discover(config(files, seed=1), tmp_path, progress=lambda name, numbers: seen.append(numbers) if name == "judged" else None)
    (earlier,) = (tmp_path / "earlier").iterdir()
    assert contents(earlier) == kept
    assert {numbers["responses"] for numbers in seen} == {0}
    assert (tmp_path / "config.toml").read_text(encoding="utf-8").count("seed = 1") == 1


@pytest.mark.slow
def test_fresh_runs_again_and_finds_the_same(files: Path, finished: Path, tmp_path: Path) -> None:
    """--fresh computes anew, keeps the old one, and ends in the same bytes."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    old = (tmp_path / "findings.json").read_bytes()
    _, _, before = discover(config(files), tmp_path, fresh=True)
    _, _, third = discover(config(files), tmp_path, fresh=True)
    assert (before, third) == (False, False)
    assert (tmp_path / "findings.json").read_bytes() == old
    assert [(p / "findings.json").read_bytes() for p in (tmp_path / "earlier").iterdir()] == [old, old]


def test_the_same_seed_in_two_folders_gives_the_same_bytes(files: Path, finished: Path, tmp_path: Path) -> None:
    """findings.json, report.md and report.html depend on what is asked of what, not on where or when."""
    discover(config(files), tmp_path)
    for name in ("findings.json", "report.md", "report.html", "config.toml", MARKER):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_findings_that_were_removed_are_found_again(files: Path, finished: Path, tmp_path: Path) -> None:
    """A finished folder without findings.json is not taken for finished."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    first = read_findings(finished)
    (tmp_path / "findings.json").unlink()
    again, _, before = discover(config(files), tmp_path)
    assert (again, before) == (first, False)


def test_two_processes_do_not_share_a_folder(files: Path, tmp_path: Path) -> None:
    """While another one works there, one line, and nothing is touched."""
    with run_lock(tmp_path), pytest.raises(RunLockedError, match="expected to be the only process working here"):
        discover(config(files), tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["config.toml", "report.md", "findings.json", "discovery.txt"])
def test_files_of_others_are_not_overwritten(name: str, files: Path, tmp_path: Path) -> None:
    """A folder that holds somebody else's file by one of our names is refused and left alone."""
    (tmp_path / name).write_text("mine\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{name}: expected to write it, found one that is not discover's; choose another --out DIR"):
        discover(config(files), tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine\n"
    assert contents(tmp_path).keys() == {name}


def test_a_place_that_cannot_be_written_is_one_line(files: Path, tmp_path: Path) -> None:
    """A file where a folder is needed, and a folder below a file."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"expected a folder to write to \(.+\); choose one with --out DIR"):
            discover(config(files), out)


def test_a_contrast_that_cannot_be_made_leaves_everything_as_it_was(files: Path, finished: Path, tmp_path: Path) -> None:
    """A misspelt step does not set the finished discovery aside; the earlier question still has its answer."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    first = read_findings(finished)
    kept = contents(tmp_path)
    with pytest.raises(ContrastError, match="step 7 is not recorded"):
        discover(config(files, before="0", after="7"), tmp_path)
    assert contents(tmp_path) == kept
    assert discover(config(files), tmp_path) == (first, tmp_path, True)
    with pytest.raises(ContrastError):
        discover(config(files, before="0", after="7"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_no_text_is_read_like_any_other(files: Path, tmp_path: Path) -> None:
    """A file name that is not UTF-8 ends in findings, with a replacement character where it is written down."""
    rows = tmp_path / "b\udcffd.jsonl"
    shutil.copy(files / "rows.jsonl", rows)
    findings, folder, _ = discover(config(files, run=str(rows)), tmp_path / "out")
    assert accepted(findings) == ["harm"]
    assert tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))["run"].endswith("d.jsonl")


def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    """A path that does not exist is named as it was typed."""
    with pytest.raises(ConfigError, match=r"--run nowhere\.jsonl: expected a run directory or a file of responses, found nothing there"):
        discover(config_of(run="nowhere.jsonl"), tmp_path)


# what decides which discovery it is


@pytest.mark.slow
def test_another_hypothesis_in_the_same_file_is_another_discovery(files: Path, tmp_path: Path) -> None:
    """Editing the file of hypotheses asks something new, though the command is the same."""
    path = write_hypotheses(tmp_path / "mine.toml", asks("harm"))
    out = tmp_path / "out"
    first, _, _ = discover(config(files, hypotheses=str(path)), out)
    write_hypotheses(path, asks("hedge"))
    second, _, before = discover(config(files, hypotheses=str(path)), out)
    assert not before
    assert [t.name for t in first.tests if t.family == "human"] == ["harm"]
    assert [t.name for t in second.tests if t.family == "human"] == ["hedge"]


@pytest.mark.slow
def test_an_edited_script_is_another_judge(files: Path, tmp_path: Path) -> None:
    """Judgements of the earlier version are kept and not taken for those of the new one."""
    path = write_script(tmp_path / "s.toml", asks("harm"))
    out = tmp_path / "out"
    spec = f"scripted:{path}"
    first, _, _ = discover(config(files, proposer=spec, judge=spec), out)
    write_script(path, asks("harm"), missing=0.5)
    second, _, before = discover(config(files, proposer=spec, judge=spec), out)
    assert not before
    assert [p.levels.cannot_tell == 0 for f in (first, second) for p in f.parameters if p.levels] == [True, False]


@pytest.mark.slow
def test_changed_data_is_another_discovery(files: Path, tmp_path: Path) -> None:
    """A row more in the file, and the earlier findings are not shown for it."""
    shutil.copy(files / "rows.jsonl", tmp_path / "rows.jsonl")
    options = {"proposer": f"scripted:{files}/script.toml", "judge": f"scripted:{files}/script.toml"}
    first, _, _ = discover(config(tmp_path, "rows.jsonl", **options), tmp_path / "out")
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "Question 0?", "completion": "harm=4 new", "side": "tuned"}) + "\n")
    second, _, before = discover(config(tmp_path, "rows.jsonl", **options), tmp_path / "out")
    assert not before
    assert first.run_digest != second.run_digest


def test_a_hypothesis_that_this_judge_cannot_test_is_refused_first(files: Path, tmp_path: Path) -> None:
    """The embedded judge applies rules: a hypothesis without one would come out as missing throughout."""
    with pytest.raises(
        ConfigError, match=r"mine.toml: hypothesis 1: the embedded judge applies rules: expected rule = \{kind = ...\}, found none"
    ):
        discover(config(files, judge="embedded", hypotheses=str(files / "mine.toml")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# memory


@pytest.mark.slow
def test_memory_off_is_off(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the data folder, and nothing about a memory to the run."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    discover(config(files, memory="off"), tmp_path / "out")
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "out" / "remembered.json").exists()


@pytest.mark.slow
def test_what_was_found_is_remembered_once(files: Path, tmp_path: Path) -> None:
    """Each tested parameter stands in the memory with its verdict; showing or repeating the discovery adds no second one."""
    place = str(tmp_path / "memory")
    discover(config(files, memory=place), tmp_path / "out")
    with Memory.open(place) as memory:
        first = {e.parameter.name: (e.status, len(e.runs)) for e in memory.entries()}
    assert {name: status for name, (status, _) in first.items()} == {"harm": "accepted", "hedge": "rejected"}
    discover(config(files, memory=place), tmp_path / "out")
    discover(config(files, memory=place), tmp_path / "elsewhere")
    with Memory.open(place) as memory:
        assert {e.parameter.name: (e.status, len(e.runs)) for e in memory.entries()} == first
    assert (tmp_path / "elsewhere" / "findings.json").read_bytes() == (tmp_path / "out" / "findings.json").read_bytes()


def test_the_list_of_outputs_is_complete(finished: Path) -> None:
    """Whatever a discovery writes into its folder is set aside with it, but for judgements and the lock."""
    ours = {p.name.removesuffix("-wal").removesuffix("-shm") for p in finished.iterdir()}
    assert ours - set(OUTPUTS) == {"judgements.sqlite", "run.lock"}
