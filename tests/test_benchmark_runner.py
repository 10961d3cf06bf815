from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main, measure, names
from tests.benchmarks.results import read_sections, replace_sections
from tests.benchmarks.section import Section, machine


def _section(title: str) -> Section:
    return Section(title=title, command="make bench ONLY=x", columns=["n", "a|b"], rows=[["1", "x|y"]], bar="must be 1: met", machine="m")


def test_a_section_carries_command_machine_table_and_bar() -> None:
    """A section says how to measure it again and where it was measured, and a pipe in a cell does not break the table."""
    text = _section("Shares").markdown()
    assert text.splitlines()[:4] == ["## Shares", "", "`make bench ONLY=x`  ", "m"]
    assert "| 1 | x\\|y |" in text
    assert text.endswith("must be 1: met")


def test_a_row_of_the_wrong_width_is_refused() -> None:
    """A table that would silently drop a number is never written."""
    with pytest.raises(ValueError, match="row 1 of 'Shares': expected 1 cells, found 2"):
        Section(title="Shares", command="c", columns=["n"], rows=[["1", "2"]])


def test_only_what_was_measured_is_rewritten(tmp_path: Path) -> None:
    """Measuring one benchmark again leaves every other section byte for byte as it was."""
    path = tmp_path / "RESULTS.md"
    replace_sections(path, {"shares": _section("Shares").markdown(), "nulls": _section("Nulls").markdown()})
    before = read_sections(path)
    replace_sections(path, {"shares": _section("Shares, again").markdown()})
    after = read_sections(path)
    assert list(after) == ["nulls", "shares"]
    assert after["nulls"] == before["nulls"]
    assert after["shares"].startswith("## Shares, again")
    assert [entry.name for entry in tmp_path.iterdir()] == ["RESULTS.md"]


def test_a_results_file_that_does_not_exist_has_no_sections(tmp_path: Path) -> None:
    """The first benchmark ever run starts the file."""
    assert read_sections(tmp_path / "RESULTS.md") == {}


def test_the_machine_line_names_what_numbers_depend_on() -> None:
    """A reader of a timing sees the processor count, Python and numpy it was taken with."""
    line = machine()
    assert "cores" in line
    assert "Python 3." in line
    assert "numpy " in line


def test_an_unknown_benchmark_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped name ends with exit code 2 and the names there are."""
    with pytest.raises(SystemExit) as stopped:
        main(["--only", "no_such_benchmark"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert [name for name in ["no_such_benchmark", *names()] if name not in said] == []


def test_every_benchmark_file_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` names each `bench_*.py` once."""
    assert main(["--list"]) == 0
    files = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("benchmarks/bench_*.py"))
    assert capsys.readouterr().out.split() == files


def test_a_missing_benchmark_module_is_not_hidden() -> None:
    """Asking the runner for a benchmark that is not there raises instead of writing an empty section."""
    with pytest.raises(ModuleNotFoundError):
        measure("no_such_benchmark", quick=True)
