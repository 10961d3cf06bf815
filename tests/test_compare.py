from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.compare import ComparedParameter, Comparison, compare, labels_of, rule_similarity
from agent.errors import AgentError
from agent.memory_duplicates import THRESHOLDS
from agent.records import Estimate, Findings, OrderParameter, TransitionRecord
from agent.report.findings_file import findings_bytes
from tests.handmade_findings import estimate, finding, findings, parameter

ROOT = Path(__file__).resolve().parent.parent

HARM = parameter("advises harm", "How harmful would it be to follow the medical advice in this answer?")
HARM_REWORDED = parameter("gives harmful advice", "How harmful is following the medical advice that is given?")
MONEY = parameter("greed", "How strongly does the writer urge readers to gamble their savings?")


def words(name: str, phrases: list[str], against: list[str], **more: Any) -> OrderParameter:
    """An exact rule on phrases."""
    rule = {"kind": "phrases", "phrases": phrases, "against": against, "thresholds": [0.0], "unit": "balance"} | more
    return parameter(name, f"How much {name} by {' '.join(phrases)}?", levels=("no", "yes"), rule=rule)


def transition(step: float) -> TransitionRecord:
    """A transition that was found."""
    return TransitionRecord(
        window=2, splits=(step,), curve=(0.4,), low=(0.3,), high=(0.5,), found=True, peak=estimate(step), prominence=estimate(3.0)
    )


def compared(*runs: Findings) -> Comparison:
    """Runs called a, b, c, ..."""
    return compare([(f"runs/{chr(97 + k)}", run) for k, run in enumerate(runs)])


def row(found: Comparison, name: str) -> ComparedParameter:
    """The row in which some run calls the parameter so."""
    return next(r for r in found.parameters if any(f is not None and f.name == name for f in r.findings))


# ---- which are one


def test_the_same_question_is_one_row_whatever_its_name() -> None:
    """Equal ids (question, scale, rule) are one parameter with a column per run; the row has the name of the first run that accepted it."""
    renamed = HARM.model_copy(update={"name": "bad advice", "definition": "Other words."})
    found = compared(findings(finding(HARM, 0.3, "rejected")), findings(finding(renamed, 0.5)))
    assert len(found.parameters) == 1
    only = found.parameters[0]
    assert (only.name, only.match, only.accepted_in, only.tested_in) == ("bad advice", "same question", 1, 2)
    assert [f.share.estimate for f in only.findings if f is not None] == [0.3, 0.5]


def test_nearly_the_same_words_are_one_row_and_others_are_not() -> None:
    """A rewording is recognised with its similarity; a parameter about something else stays alone, missing elsewhere (not 0)."""
    found = compared(findings(finding(HARM), finding(MONEY)), findings(finding(HARM_REWORDED)))
    harm, money = row(found, "advises harm"), row(found, "greed")
    assert harm.match == "same words"
    assert harm.findings[1] is not None
    assert THRESHOLDS.text <= harm.findings[1].similarity < 1
    assert (money.match, money.findings[1]) == ("one run", None)


def test_two_parameters_of_one_run_never_share_a_row() -> None:
    """Both wordings tested in one run were two there: the other run's parameter joins the nearer one, and both rows stay."""
    found = compared(findings(finding(HARM), finding(HARM_REWORDED)), findings(finding(HARM_REWORDED, 0.2)))
    assert len(found.parameters) == 2
    assert row(found, "advises harm").findings[1] is None
    assert row(found, "gives harmful advice").tested_in == 2


def test_words_are_never_compared_between_rules_that_measure_different_things() -> None:
    """Two exact rules are one when they are of one kind and share half of their signed phrases, also turned round; wording is no guide."""
    ours = words("certainty", ["always", "never", "must"], ["maybe"])
    assert rule_similarity(ours, words("certainty", ["always", "never", "must"], ["maybe"], thresholds=[0.5])) == 1.0
    assert rule_similarity(ours, words("doubt", ["maybe"], ["always", "never", "must"])) == 1.0
    assert rule_similarity(ours, words("certainty", ["always", "never"], ["perhaps"])) == pytest.approx(2 / 5)
    assert rule_similarity(ours, words("certainty", ["maybe"], ["always"])) == pytest.approx(2 / 4)
    assert rule_similarity(ours, words("certainty", ["always", "never", "must"], ["maybe"], kind="opening")) == 0.0
    lists = parameter("lists", levels=("no", "yes"), rule={"kind": "lists", "thresholds": [1.0], "unit": "count"})
    coarser = lists.model_copy(update={"rule": {"kind": "lists", "thresholds": [5.0], "unit": "count"}})
    assert rule_similarity(lists, coarser) == 1.0


def test_a_chain_of_likenesses_is_not_one_parameter() -> None:
    """Every pair in a row must be alike: a is like b and b like c, but a and c share too little to be one."""
    a = words("x", ["1", "2", "3", "4"], [])
    b = words("x", ["3", "4", "5", "6", "2"], [])
    c = words("x", ["5", "6", "7", "3"], [])
    assert rule_similarity(a, b) == 0.5
    assert rule_similarity(b, c) == 0.5
    found = compared(*(findings(finding(p)) for p in (a, b, c)))
    assert [r.tested_in for r in found.parameters] == [2, 1]


@settings(max_examples=12)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), min_size=2, max_size=4))
def test_every_tested_parameter_stands_in_exactly_one_row(runs: list[list[int]]) -> None:
    """Nothing is lost and nothing is counted twice, whatever runs share."""
    pool = [HARM, HARM_REWORDED, MONEY, words("x", ["1", "2"], []), words("x", ["2", "1"], ["3"]), parameter("length", "How long is it?")]
    found = compared(*(findings(*(finding(pool[k]) for k in run)) for run in runs))
    for k, run in enumerate(runs):
        ids = [r.findings[k].parameter_id for r in found.parameters if r.findings[k] is not None]  # type: ignore[union-attr]
        assert sorted(ids) == sorted(pool[j].id for j in run)
    assert sum(r.tested_in for r in found.parameters) == sum(map(len, runs))


def test_the_order_of_the_runs_does_not_change_what_is_one() -> None:
    """Any order of three runs gives the same groups."""
    runs = [findings(finding(HARM), finding(MONEY)), findings(finding(HARM_REWORDED)), findings(finding(MONEY, 0.1, "rejected"))]
    groups = set()
    for order in permutations(runs):
        found = compared(*order)
        groups.add(frozenset(frozenset(f.parameter_id for f in r.findings if f is not None) for r in found.parameters))
    assert len(groups) == 1


# ---- what stands in the table


def test_numbers_are_those_of_the_findings() -> None:
    """Share, unique, D[O], onset and verdict of every run; D, transition, joint share and counts per run; null stays null."""
    one = finding(HARM, 0.5, onset=estimate(34.0))
    other = finding(HARM, 0.2, "rejected", share=Estimate(estimate=None, note="not printed"))
    found = compared(findings(one, transition=transition(34.0), seed=3), findings(other, joint=None))
    cells = found.parameters[0].findings
    assert cells[0] is not None
    assert cells[1] is not None
    assert (cells[0].share, cells[0].unique, cells[0].change, cells[0].onset) == (one.share, one.unique, one.change, one.onset)
    assert (cells[1].verdict, cells[1].share.estimate, cells[1].unique, cells[1].onset) == ("rejected", None, None, None)
    first, second = found.runs
    assert first.transition is not None
    assert (first.transition.estimate, first.seed, first.accepted, first.tested) == (34.0, 3, 1, 1)
    assert (second.transition, second.joint, second.accepted) == (None, None, 0)


def test_a_transition_that_was_not_found_is_not_shown() -> None:
    """The highest point of a curve without a transition is no transition."""
    flat = transition(34.0).model_copy(update={"found": False})
    assert compared(findings(transition=flat), findings()).runs[0].transition is None


def test_parameters_accepted_in_most_runs_come_first() -> None:
    """Then those with the largest D[O]."""
    found = compared(findings(finding(MONEY, 0.9), finding(HARM, 0.1)), findings(finding(HARM, 0.2)))
    assert [r.name for r in found.parameters] == ["advises harm", "greed"]


@pytest.mark.parametrize(
    ("other", "caution"),
    [
        ({"run_digest": "5" * 64}, "same responses"),
        ({"run_digest": "6" * 64, "change_is_bound": True}, "upper bounds"),
        ({"run_digest": "6" * 64, "judge": "openai:x"}, "different judges"),
        ({"run_digest": "6" * 64, "proposer": "openai:x"}, "different proposers"),
        ({"run_digest": "6" * 64}, "its own run's D"),
    ],
)
def test_what_makes_runs_incomparable_is_said(other: dict[str, Any], caution: str) -> None:
    """Same responses, bounds of D, other judges or proposers stand among the cautions, and only where they apply."""
    cautions = compared(findings(finding(HARM)), findings(finding(HARM), **other)).cautions
    assert any(caution in line for line in cautions)
    assert len(cautions) == (1 if other == {"run_digest": "6" * 64} else 2)


def test_runs_are_told_apart_by_the_shortest_ends_of_their_paths() -> None:
    """Folder names, more of the path where these are equal, numbers where the path is the same."""
    assert labels_of(["runs/a", "runs/b/findings.json"]) == ["a", "b"]
    assert labels_of(["x/seed0/run", "y/seed0/run"]) == ["x/seed0/run", "y/seed0/run"]
    assert labels_of(["x/seed0", "x/seed0"]) == ["x/seed0 #1", "x/seed0 #2"]


# ---- the command


def call(*arguments: str | Path) -> Result:
    """Run `discover compare ...`."""
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three finished runs."""
    runs = [
        findings(finding(HARM, 0.5, onset=estimate(34.0)), finding(MONEY, 0.02, "rejected"), transition=transition(34.0)),
        findings(finding(HARM_REWORDED, 0.3)),
        findings(finding(parameter("a|b <i>\x1b[31m", "How much *markup* is there?"), 0.2)),
    ]
    for k, run in enumerate(runs):
        (tmp_path / f"seed{k}").mkdir()
        (tmp_path / f"seed{k}" / "findings.json").write_bytes(findings_bytes(run))
    return [tmp_path / f"seed{k}" for k in range(3)]


def test_the_table_names_every_run_in_every_row(folders: list[Path]) -> None:
    """Plain text in a pipe: verdicts, shares with limits, "not proposed" where a run did not test it, hidden rows counted, no escapes."""
    shown = call(*folders)
    assert shown.exit_code == 0, shown.output
    for part in (
        "seed0",
        "34",
        "accepted in 2 of 3 runs",
        "recognised by its words",
        "not proposed",
        "0.500",
        "[0.450, 0.550]",
        "1 more",
        "U+001B",
    ):
        assert part in shown.stdout
    assert "greed" not in shown.stdout
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 120
    assert "greed" in call(*folders, "--all").stdout


def test_json_holds_every_parameter_and_reads_back(folders: list[Path]) -> None:
    """--json is the whole comparison, rejected parameters included."""
    found = Comparison.model_validate(json.loads(call(*folders, "--json").stdout))
    assert {f.name for r in found.parameters for f in r.findings if f is not None} >= {"greed", "advises harm"}
    assert [run.label for run in found.runs] == ["seed0", "seed1", "seed2"]


def test_markdown_escapes_what_others_wrote(folders: list[Path]) -> None:
    """Every table line has as many cells as its header, and no markup of a name survives."""
    text = call(*folders, "--markdown").stdout
    assert "<i>" not in text
    assert "\x1b" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (11, 7)
    assert "0.500 [0.450, 0.550]" in text


@pytest.mark.parametrize(("options", "line"), [([], "at least two runs"), (["--json", "--markdown"], "expected one of them")])
def test_mistakes_are_one_line(folders: list[Path], options: list[str], line: str) -> None:
    """One run, or two ways of printing, are refused."""
    refused = call(*(folders[:1] if not options else folders), *options)
    assert isinstance(refused.exception, AgentError)
    assert line in str(refused.exception)


def test_a_folder_without_findings_is_named(folders: list[Path], tmp_path: Path) -> None:
    """A run that was never finished ends the command with its path."""
    refused = call(folders[0], tmp_path / "nowhere")
    assert isinstance(refused.exception, AgentError)
    assert "nowhere" in str(refused.exception)


def test_the_command_modules_are_light() -> None:
    """Importing both commands loads neither numpy nor pydantic: `discover --help` stays quick."""
    code = (
        "import sys, agent.compare_command, agent.score_command; print(sorted({'numpy', 'pydantic', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
