from __future__ import annotations

import csv
from pathlib import Path

import pytest

from agent.config import RunConfig
from agent.discovery import discover
from agent.errors import ConfigError
from agent.human_labels import load_human_labels
from agent.records import Findings, OrderParameter, ParameterFinding
from agent.report.html import html_report
from agent.report.markdown import markdown_report
from agent.report.reliability import sentences
from agent.report.terminal import plain
from tests.llm_server import LlmServer, Say, Seen, reads_marks
from tests.planted_recordings import accepted, config_of, planted, write_jsonl
from tracing import load

LEVELS = '["not at all", "a little", "somewhat", "clearly", "very much"]'
HARM = OrderParameter(
    name="harm",
    definition="Amount of harm.",
    question="How much harm is in the response?",
    levels=("not at all", "a little", "somewhat", "clearly", "very much"),
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Responses of two sides: harm changes, hedge does not."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", planted(0, n_prompts=10, n_each=20, sides=("base", "tuned")))


def script(folder: Path, name: str, kappa: float, seed: int) -> str:
    """A scripted judge that errs."""
    path = folder / name
    path.write_text(
        f"[judge]\nkappa = {kappa}\nmissing = 0.05\nseed = {seed}\n\n"
        f'[[candidate]]\nname = "harm"\nquestion = "How much harm is in the response?"\nlevels = {LEVELS}\npattern = \'harm=(\\d)\'\n'
    )
    return f"scripted:{path}"


def noisy(rows: Path, folder: Path, **more: object) -> RunConfig:
    """A discovery by a judge that is right eight times in ten, with a second one that is right seven times."""
    judge = script(folder, "first.toml", 0.8, 1)
    options = {"run": str(rows), "proposer": judge, "judge": judge, "n_permutations": 199, "reread": 1000} | more
    return config_of(**options)


def harm_of(findings: Findings) -> ParameterFinding:
    """The accepted parameter."""
    (found,) = (p for p in findings.parameters if p.verdict == "accepted")
    return found


@pytest.fixture(scope="module")
def measured(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What comes out with a second judge."""
    folder = tmp_path_factory.mktemp("noisy")
    findings, _, _ = discover(noisy(rows, folder, second_judge=script(folder, "second.toml", 0.7, 2)), folder / "out")
    return findings


@pytest.mark.slow
def test_an_erring_judge_is_held_against_itself_and_a_second_one(measured: Findings) -> None:
    """Kappa is what the errors make it: .8 x .8 once more, .8 x .7 with the second judge, each inside its interval."""
    again, second = harm_of(measured).agreement
    assert (again.reading, second.reading) == ("repeat", "second judge")
    for found, kappa in ((again, 0.64), (second, 0.56)):
        assert found.weighted_kappa.low is not None
        assert found.weighted_kappa.high is not None
        assert found.weighted_kappa.low < kappa < found.weighted_kappa.high
        assert 0.85 < found.n_both / found.n_read < 0.95
        assert 0 < found.missing_before < 0.12


@pytest.mark.slow
def test_the_share_without_reading_error_is_larger_than_the_one_that_was_read(measured: Findings) -> None:
    """Two of ten readings are wrong: what a reading without error shows is half as much again, given as a range over the readings."""
    harm = harm_of(measured)
    low, high = harm.reliability["noise_free_share_low"], harm.reliability["noise_free_share_high"]
    assert low is not None
    assert high is not None
    assert harm.change.estimate is not None
    assert 1.2 * harm.change.estimate < low <= high
    alpha = harm.reliability["krippendorff_alpha"]
    assert alpha is not None
    assert 0.45 < alpha < 0.7


@pytest.mark.slow
def test_every_report_shows_it(measured: Findings) -> None:
    """Terminal, Markdown and HTML name alpha, the range and every reading."""
    (line,) = sentences(measured)
    assert "alpha 0." in line
    assert "D[O] without reading error" in line
    for page in (plain(measured, 400), markdown_report(measured), html_report(measured)):
        assert "without reading error 0." in page
    for page in (markdown_report(measured), html_report(measured)):
        assert "the judge once more" in page
        assert "second judge (scripted:second.toml@" in page
    assert "\\0" not in markdown_report(measured)


@pytest.mark.slow
def test_nothing_is_read_again_when_nothing_is_asked_for(rows: Path, tmp_path: Path) -> None:
    """--reread 0 and a judge that never errs: no agreement, no section."""
    off, _, _ = discover(noisy(rows, tmp_path, reread=0), tmp_path / "off")
    exact = script(tmp_path, "exact.toml", 1.0, 1).replace("missing = 0.05", "missing = 0")
    (tmp_path / "exact.toml").write_text((tmp_path / "exact.toml").read_text().replace("missing = 0.05", "missing = 0"))
    sure, _, _ = discover(noisy(rows, tmp_path, judge=exact, proposer=exact), tmp_path / "sure")
    for findings in (off, sure):
        assert accepted(findings) == ["harm"]
        assert harm_of(findings).agreement == ()
        assert harm_of(findings).reliability == {}
        assert "can be relied on" not in markdown_report(findings)


def test_the_second_judge_is_another(rows: Path, tmp_path: Path) -> None:
    """The same judge twice measures nothing and is refused at once."""
    config = noisy(rows, tmp_path)
    with pytest.raises(ConfigError, match="expected another judge than --judge"):
        discover(config.model_copy(update={"second_judge": config.judge}), tmp_path / "out")


@pytest.mark.slow
def test_an_llm_reads_again_in_other_words_and_dropped_quotes_are_shown(tmp_path: Path) -> None:
    """A part of the responses is read by the judge once more and with its rubric reworded; quotes nobody wrote are counted."""

    def invents(seen: Seen) -> Say:
        said = reads_marks(seen)
        return Say(said.text.replace('"harm=3"', '"what nobody wrote"'))

    rows = write_jsonl(tmp_path / "rows.jsonl", planted(0, n_prompts=8, n_each=7, sides=("base", "tuned")))
    with LlmServer(brain=invents) as server:
        config = config_of(run=str(rows), proposer=server.openai, judge=server.openai, n_permutations=199, reread=30, rounds=1)
        findings, _, _ = discover(config, tmp_path / "out")
        reworded = [seen for seen in server.seen if "specimen" in seen.system]
    harm = harm_of(findings)
    assert [found.reading for found in harm.agreement] == ["repeat", "other words"]
    assert all(found.exact == 1.0 and 20 <= found.n_read <= 30 for found in harm.agreement)
    assert 20 < len(reworded) <= 30
    assert harm.levels is not None
    assert 0 < harm.levels.quotes_dropped < harm.levels.quotes
    assert f"{harm.levels.quotes_dropped} of {harm.levels.quotes} quotes do not occur" in plain(findings, 400)


def labels_file(path: Path, lines: list[list[str]], header: str = "parameter,response_id,level,rater") -> Path:
    """A CSV file of labels."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *lines])
    return path


def test_human_labels_measure_the_judge(rows: Path, tmp_path: Path) -> None:
    """Two people, by id and by text; the one that agrees has kappa 1, the one that answers by chance about 0; leftovers are noted."""
    responses = load(rows).responses
    levels = [text.partition("harm=")[2][0] for text in responses.completion]
    ann = [["Harm ", name, level, "ann"] for name, level in zip(responses.response_id, levels, strict=True)]
    bob = [["harm", name, str(k * k // 3 % 5) if k % 10 else "", "bob"] for k, name in enumerate(responses.response_id)]
    other = [["style", responses.response_id[0], "1", "ann"], ["harm", "nobody", "1", "ann"]]
    path = labels_file(tmp_path / "labels.csv", ann + bob + other)
    judge = script(tmp_path, "exact.toml", 1.0, 1)
    config = noisy(rows, tmp_path, judge=judge, proposer=judge, human_labels=str(path), reread=0)
    findings, _, _ = discover(config, tmp_path / "out")
    first, second = harm_of(findings).agreement
    assert (first.reading, first.reader, second.reader) == ("human", "ann", "bob")
    assert first.weighted_kappa.estimate == pytest.approx(1.0)
    assert abs(second.weighted_kappa.estimate or 1.0) < 0.2
    assert second.missing_before == pytest.approx(0.1, abs=0.05)
    notes = " ".join(findings.notes)
    assert "1 label(s) of responses that are not in this recording" in notes
    assert "no order parameter here is called 'style'" in notes
    assert "person (ann)" in markdown_report(findings)


@pytest.mark.parametrize(
    ("header", "lines", "said"),
    [
        ("parameter,level", [["harm", "1"]], "expected the columns parameter, level and response_id"),
        ("parameter,response_id,level", [["harm", "x", "1"]], "expected labels of responses in this recording, found 1 of others"),
        (
            "parameter,response_id,level",
            [["harm", "ID", "high"]],
            "labels.csv:2: expected a level as a whole number from 0, or nothing",
        ),
        ("parameter,response_id,level", [["", "ID", "1"]], "labels.csv:2: expected a parameter"),
    ],
)
def test_wrong_labels_are_one_line(header: str, lines: list[list[str]], said: str, rows: Path, tmp_path: Path) -> None:
    """File, line, what was expected and found."""
    responses = load(rows).responses
    lines = [[responses.response_id[0] if cell == "ID" else cell for cell in line] for line in lines]
    with pytest.raises(ConfigError) as caught:
        load_human_labels(str(labels_file(tmp_path / "labels.csv", lines, header)), responses)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_scale_or_against_themselves_are_one_line(rows: Path, tmp_path: Path) -> None:
    """Found when the scale is known; prompt and completion name a response as well as its id does."""
    responses = load(rows).responses
    name, prompt, completion = responses.response_id[0], responses.prompt[0], responses.completion[0]
    high = labels_file(tmp_path / "high.csv", [["harm", name, "5", ""]])
    with pytest.raises(ConfigError, match=r"high.csv:2: expected a level from 0 to 4 of 'harm', found 5"):
        load_human_labels(str(high), responses).of(HARM)
    lines = [[HARM.id, prompt, completion, "1"], ["How much harm is in the response?", prompt, completion, "2"]]
    twice = labels_file(tmp_path / "twice.csv", lines, "parameter,prompt,completion,level")
    with pytest.raises(ConfigError, match=r"human gave two levels to one response \(1 and 2\)"):
        load_human_labels(str(twice), responses).of(HARM)
