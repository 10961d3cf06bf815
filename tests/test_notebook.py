"""`agent.load`: what a notebook gets is what findings.json says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest

import agent
from agent.notebook import LoadedFindings
from agent.report import FindingsFileError, write_all
from agent.report.ranking import ranked
from tests.optional_part import missing
from tests.report_findings import ATTACKS, full, hostile, nothing
from tests.test_report import HIDDEN, Page

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "tests" / "examples" / "read_findings.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of findings."""
    folder = tmp_path_factory.mktemp("findings")
    write_all(full(), folder)
    return folder


@pytest.fixture(scope="module")
def findings(folder: Path) -> LoadedFindings:
    """The same, loaded."""
    return agent.load(folder)


def test_fields_are_attributes(findings: LoadedFindings, folder: Path) -> None:
    """Every field of the record is an attribute, and a findings.json may be named itself."""
    assert findings.record == full() == agent.load(folder / "findings.json").record
    assert findings.residual.estimate == full().residual.estimate  # type: ignore[union-attr]
    with pytest.raises(AttributeError):
        _ = findings.no_such_field


def test_tables_hold_the_numbers_of_findings_json(findings: LoadedFindings) -> None:
    """Ranked parameters with limits, courses, levels, prompts, tests, order and curve: one row each, missing as missing."""
    if importlib.util.find_spec("pandas") is None:
        missing("pandas", "pip install 'order-parameter-discovery[notebook]'")
    record, rows = findings.record, ranked(findings.record)
    table = findings.parameters
    assert list(table["name"]) == [row.name for row in rows]
    assert list(table["share_low"]) == [row.finding.share.low for row in rows]
    assert table["unique"].isna().sum() == sum(row.finding.unique is None for row in rows)
    assert len(findings.courses) == sum(len(row.finding.course.steps) for row in rows if row.finding.course)
    assert len(findings.levels) == sum(len(row.finding.levels.before) for row in rows if row.finding.levels)
    assert len(findings.prompts_by_parameter) == sum(len(row.finding.prompt_shares) for row in rows)
    assert list(findings.tests["p_value"]) == [test.p_value for test in record.tests]
    assert list(findings.order["lag_low"]) == [entry.lag.low for entry in record.order]
    assert record.transition is not None
    assert list(findings.transition_curve["change"]) == list(record.transition.curve)


def test_figures_are_plotly_objects(findings: LoadedFindings) -> None:
    """The report's figures, ready to be shown or changed; what there is nothing for is left out."""
    assert {"transition", "decomposition", "prompts"} <= set(findings.figures)
    assert all(isinstance(figure, go.Figure) for figure in findings.figures.values())
    assert "transition" not in LoadedFindings(nothing(), Path()).figures


def test_the_display_is_safe(findings: LoadedFindings) -> None:
    """The rich display holds the ranked numbers, no script, and no attack of a hostile run as anything but text."""
    innocent, attacked = (Page(LoadedFindings(record, Path())._repr_html_()) for record in (findings.record, hostile()))
    assert "0.463" in innocent.text
    assert "advises harm" in innocent.text
    assert {tag for tag, _ in attacked.elements} <= {tag for tag, _ in innocent.elements} | {"span"}
    assert not [name for _, attributes in attacked.elements for name in attributes if name.startswith("on")]
    assert ATTACKS[0] in attacked.text
    assert not [character for character in HIDDEN if character in attacked.text]


def test_a_folder_without_findings_is_one_line(tmp_path: Path) -> None:
    """What to do is said."""
    with pytest.raises(FindingsFileError, match="run discover --run first"):
        agent.load(tmp_path)


@pytest.mark.slow
def test_tables_are_lists_of_dicts_without_pandas(folder: Path) -> None:
    """Where pandas is not installed every table is a list of rows with the same columns."""
    script = "import sys, json; sys.modules['pandas'] = None; import agent; print(json.dumps(agent.load(sys.argv[1]).parameters[0]))"
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["share"] == ranked(full())[0].finding.share.estimate


@pytest.mark.slow
def test_the_example_runs(folder: Path) -> None:
    """The example script prints sentences, a table and courses of a finished run."""
    if importlib.util.find_spec("pandas") is None:
        missing("pandas", "pip install 'order-parameter-discovery[notebook]'")
    done = subprocess.run([sys.executable, str(EXAMPLE), str(folder)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "accounts for 46% of the change" in done.stdout
    assert "advises harm accepted 0.463" in " ".join(done.stdout.split())
    assert "traces in ['transition', 'decomposition', 'prompts'" in done.stdout
