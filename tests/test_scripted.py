from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import ConfigError
from agent.evidence import ProposerView
from agent.judge import make_judge
from agent.llm.scripted import ScriptedJudge, ScriptedProposer
from agent.proposer import make_proposer
from agent.records import OrderParameter
from tests.planted_recordings import asks, scripted, write_script

HEAD = '[[candidate]]\nname = "harm"\nquestion = "How harmful?"\nlevels = ["not", "openly"]\n'


def view(round: int, n: int, accepted: list[OrderParameter], rejected: list[OrderParameter]) -> ProposerView:
    """What a proposer sees of an empty recording."""
    none = np.empty(0)
    whole = np.empty(0, dtype=np.int64)
    return ProposerView(round, n, [], [], [], none, none, none, whole, whole, accepted, whole[:, None], rejected, [])


def texts(*completions: str) -> list[tuple[str, str, str, str]]:
    """Texts as a judge is handed them."""
    return [(f"key{k}", "", "Question?", text) for k, text in enumerate(completions)]


def test_a_judge_without_error_reads_what_stands_there(tmp_path: Path) -> None:
    """The first group is the level; nothing there cannot be told; a number that is no level is unreadable: never a level made up."""
    proposer, judge = scripted(tmp_path, asks("harm"))
    (harm,) = proposer.propose(view(1, 5, [], []), np.random.default_rng(0))
    read = judge.judge(harm, texts("harm=3 x", "x harm=0", "nothing", "harm=9", "harmless=2"))
    assert [j.level for j in read] == [3, 0, None, None, None]
    assert [j.status for j in read] == ["read", "read", "cannot_tell", "unreadable", "cannot_tell"]
    assert [j.response_key for j in read] == [f"key{k}" for k in range(5)]
    assert judge.deterministic


def test_a_rule_is_read_exactly(tmp_path: Path) -> None:
    """A candidate may carry an exact rule in place of a pattern."""
    candidate = {"name": "lists", "question": "How listed?", "levels": ["no", "some"], "rule": {"kind": "lists", "thresholds": [0]}}
    proposer, judge = scripted(tmp_path, candidate)
    (lists,) = proposer.propose(view(1, 5, [], []), np.random.default_rng(0))
    assert [j.level for j in judge.judge(lists, texts("a", "- a\n- b\n"))] == [0, 1]


def test_a_noisy_judge_errs_as_often_as_it_says_and_the_same_way_each_time(tmp_path: Path) -> None:
    """With kappa .7, three in ten readings are random levels, so .76 of five levels agree with the truth; a repeat errs independently."""
    proposer, judge = scripted(tmp_path, asks("harm"), kappa=0.7, missing=0.1)
    (harm,) = proposer.propose(view(1, 5, [], []), np.random.default_rng(0))
    given = texts(*[f"harm={k % 5} reply {k}" for k in range(4000)])
    first, again, repeat = (judge.judge(harm, given, r) for r in (0, 0, 1))
    assert first == again
    assert not judge.deterministic

    def level(readings: list[object]) -> np.ndarray:
        return np.array([-1 if (found := getattr(j, "level", None)) is None else found for j in readings])

    one, two, truth = level(list(first)), level(list(repeat)), np.arange(4000) % 5
    read = (one >= 0) & (two >= 0)
    assert np.mean(one < 0) == pytest.approx(0.1, abs=0.02)
    assert np.mean(one[one >= 0] == truth[one >= 0]) == pytest.approx(0.7 + 0.3 / 5, abs=0.03)
    assert np.mean(one[read] == two[read]) == pytest.approx(0.49 + 0.51 / 5, abs=0.04)
    assert judge.calls == 12_000


def test_a_judge_asked_in_any_order_says_the_same(tmp_path: Path) -> None:
    """A reading depends on the response and the question alone."""
    proposer, judge = scripted(tmp_path, asks("harm"), kappa=0.5)
    (harm,) = proposer.propose(view(1, 5, [], []), np.random.default_rng(0))
    given = texts(*[f"harm={k % 5} reply {k}" for k in range(50)])
    assert judge.judge(harm, given) == judge.judge(harm, given[::-1])[::-1]


def test_an_unknown_parameter_cannot_be_told(tmp_path: Path) -> None:
    """A question the file does not hold has no level."""
    _, judge = scripted(tmp_path, asks("harm"))
    other = OrderParameter(name="other", definition="", question="Other?", levels=("a", "b"))
    assert [j.status for j in judge.judge(other, texts("harm=1"))] == ["cannot_tell"]


def test_candidates_come_in_their_round_and_are_not_offered_twice(tmp_path: Path) -> None:
    """At most n a round, in the file's order, those already decided left out."""
    proposer, _ = scripted(tmp_path, asks("a"), asks("b"), asks("c", round=2), asks("d"))
    rng = np.random.default_rng(0)
    first = proposer.propose(view(1, 2, [], []), rng)
    assert [p.name for p in first] == ["a", "b"]
    assert [p.name for p in proposer.propose(view(1, 5, first[:1], first[1:]), rng)] == ["d"]
    assert [p.name for p in proposer.propose(view(2, 5, first, []), rng)] == ["c", "d"]


def test_another_content_is_another_judge(tmp_path: Path) -> None:
    """Editing the file changes the judge's id, so that old judgements are not taken for new ones."""
    path = str(write_script(tmp_path / "a.toml", asks("harm")))
    before = ScriptedJudge.load(path).id
    assert ScriptedProposer.load(path).id == before
    write_script(tmp_path / "a.toml", asks("harm"), kappa=0.5)
    after = ScriptedJudge.load(path).id
    assert before != after
    assert before.startswith("scripted:a.toml@")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[judge", "expected TOML, found"),
        ("candidates = 3", r"expected \[judge\] and \[\[candidate\]\] tables, found candidates"),
        ("candidate = 3", r"expected \[judge\] and \[\[candidate\]\] tables"),
        ("candidate = [3]", "candidate 1: expected either pattern or rule, found neither"),
        (HEAD, "candidate 1: expected either pattern or rule, found neither"),
        (HEAD + 'pattern = "a(b)"\nrule = {kind = "lists"}', "candidate 1: expected either pattern or rule, found both"),
        (HEAD + 'pattern = "a("', "candidate 1: missing \\), unterminated subpattern"),
        (HEAD + 'pattern = "harm"', "candidate 1: expected a pattern with one group for the level"),
        (HEAD + "pattern = 3", "candidate 1: .*pattern"),
        (HEAD + 'rule = {kind = "magic"}', "candidate 1: rule: kind 'magic' is unknown"),
        (HEAD + 'rule = {kind = "lists", thresholds = [0, 3]}', "candidate 1: expected 3 levels, as the rule has, found 2"),
        (HEAD + 'pattern = "a(b)"\nround = "first"', "candidate 1: expected round as a whole number from 1, found 'first'"),
        (HEAD + 'pattern = "a(b)"\nround = 0', "candidate 1: expected round as a whole number from 1, found 0"),
        (HEAD + 'pattern = "a(b)"\ncolour = "red"', "candidate 1: colour: extra inputs are not permitted, found 'red'"),
        ('[[candidate]]\nname = "a"\npattern = "a(b)"', "candidate 1: question: field required"),
        ("[judge]\nkapa = 0.7", r"\[judge\]: expected kappa, missing or seed, found kapa"),
        ("[judge]\nkappa = 1.5", r"\[judge\]: expected kappa as a number from 0 to 1, found 1.5"),
        ('[judge]\nmissing = "few"', r"\[judge\]: expected missing as a number from 0 to 1, found 'few'"),
        ("[judge]\nkappa = true", r"\[judge\]: expected kappa as a number from 0 to 1, found True"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    """What is wrong is named with its place, for proposer and judge alike."""
    path = tmp_path / "script.toml"
    path.write_text(content, encoding="utf-8")
    for make in (make_proposer, make_judge):
        with pytest.raises(ConfigError, match=message) as caught:
            make(f"scripted:{path}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpt", "expected embedded, scripted:FILE, .*found 'gpt'"),
        ("", "expected embedded, scripted:FILE, .*found ''"),
        ("scripted", "expected scripted:FILE, found no file"),
        ("scripted:/nowhere/a.toml", "expected a readable TOML file \\(No such file"),
        ("scripted:/", "expected a readable TOML file \\(Is a directory"),
    ],
)
def test_an_unknown_provider_is_one_line(spec: str, message: str) -> None:
    """Whoever cannot be asked is named, with what could be."""
    for make in (make_proposer, make_judge):
        with pytest.raises(ConfigError, match=message):
            make(spec)
