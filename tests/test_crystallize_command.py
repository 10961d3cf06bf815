from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from agent.choice_tables import LISTED_COLUMNS, read_counts
from agent.choices import stages_of
from agent.crystallize_command import crystallize
from agent.errors import AgentError, ConfigError
from agent.random_tasks import OUR_TASKS, RandomTask, load_tasks
from probes.errors import ProbeError
from probes.option_probabilities import option_probabilities
from tests.three_stages import train_three_stages
from tests.tiny_subject import tiny_subject, tiny_tokenizer
from tracing.errors import TracingError

app = typer.Typer()
app.command()(crystallize)

TINY_TASK = """
purpose = "A choice the tiny subject can write."
provenance = "This test."
plain = ["abc", "bcd", "cda", "dab"]
[options]
a = ["a"]
"bb" = ["bb"]
"""


def _run(*arguments: object) -> str:
    """Standard output of a command that succeeds."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _refused(*arguments: object) -> str:
    """The one line of a command that is refused as a mistake in input."""
    with pytest.raises((AgentError, ProbeError, TracingError)) as caught:
        CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _counts(path: Path, rng: np.random.Generator, columns: Sequence[str] = ("stage", "task", "phrasing", "option", "count")) -> Path:
    """Counts of two tasks at three stages: the die collapses on 4 and then settles, the coin stays fair."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for task, options in (("coin", ("heads", "tails")), ("die", tuple("123456"))):
            for k in range(6):
                for stage, mass in (("base", 0.0), ("sft", 0.75), ("rl", 0.97)):
                    law = rng.dirichlet(np.full(len(options), 60.0))
                    law = (1 - mass) * law + mass * np.eye(6)[3] if task == "die" else law
                    drawn = rng.multinomial(200, law)
                    writer.writerows((stage, task, f"phrasing {k}", option, n) for option, n in zip(options, drawn, strict=True))
                    writer.writerow((stage, task, f"phrasing {k}", "(other)", 10))
    return path


def _labels(output: str) -> dict[tuple[str, str], str]:
    (subject,) = json.loads(output)["subjects"]
    return {(measure["task"], measure["stage"]): measure["label"] for measure in subject["measures"]}


# our tasks


def test_our_tasks_are_many_and_well_formed() -> None:
    """At least 15 tasks with purpose and provenance, each asked plainly in at least five different ways."""
    tasks = load_tasks()
    assert len(tasks) >= 15
    assert len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        assert len(set(task.plain)) == len(task.plain) >= 5, task.name
        assert task.purpose.endswith(".")
        assert task.provenance.endswith(".")
        assert not task.steered
    sizes = {task.name: len(task.options) for task in tasks}
    assert sizes["coin"] == 2
    assert sizes["number_1_to_10"] == 10
    assert sizes["letter"] == 26


def test_no_phrasing_answers_itself() -> None:
    """A phrasing names all options, or none, or the ends of a range: it pushes towards none of them."""
    ranges = {"from", "between", "to", "through"}
    harmless = {"one", "fall"}  # numerals and verbs of the question
    for task in load_tasks():
        for phrasing in task.plain:
            words = set(re.findall(r"\w+", phrasing.lower()))
            spelled = {name: {s.lower() for s in spellings if len(s) > 1} - harmless for name, spellings in task.options.items()}
            named = [name for name, spellings in spelled.items() if spellings & words]
            assert len(named) in (0, len(task.options)) or words & ranges, (task.name, phrasing, named)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml [", "expected a task in TOML"),
        ('plain = ["x"]', "at least two \\[options\\]"),
        ('plain = ["x"]\n[options]\na = ["a"]', "at least two"),
        ('plain = ["x"]\n[options]\na = ["a"]\nb = "b"', "options.b as a list of texts"),
        ('plain = []\n[options]\na = ["a"]\nb = ["b"]', "plain as a list"),
        ('plain = ["x", "x"]\n[options]\na = ["a"]\nb = ["b"]', "one twice"),
        ('plain = ["x"]\n[options]\na = ["a"]\nb = ["A"]', "told apart"),
        ('plain = ["x"]\n[options]\na = ["New"]\nb = ["New York"]', "told apart"),
        ('plan = ["x"]\n[options]\na = ["a"]\nb = ["b"]', "found also plan"),
    ],
)
def test_a_task_that_is_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    """Every mistake in a task file names the file and what was expected."""
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_tasks(tmp_path / "mine.toml")
    assert "mine.toml" in str(caught.value)
    with pytest.raises(ConfigError, match="found none"):
        load_tasks(tmp_path / "missing")


# counts


def test_counts_are_labelled(tmp_path: Path, rng: np.random.Generator) -> None:
    """Built-in nucleation and settling of the die are found, the coin is liquid throughout."""
    found = _labels(_run("--counts", _counts(tmp_path / "counts.csv", rng), "--json"))
    assert [found["die", stage] for stage in ("base", "sft", "rl")] == ["liquid", "nucleation", "settling"]
    assert {found["coin", stage] for stage in ("base", "sft", "rl")} == {"liquid"}


def test_json_holds_what_was_measured(tmp_path: Path, rng: np.random.Generator) -> None:
    """The JSON names its format, source and notes, holds intervals and p values, and the mass outside as counted.

    The same seed gives the same bytes.
    """
    path = _counts(tmp_path / "counts.csv", rng)
    text = _run("--counts", path, "--json")
    assert text == _run("--counts", path, "--json")
    content = json.loads(text)
    assert (content["format"], content["version"], content["source"]) == ("order-parameter-crystallization", 1, str(path))
    (subject,) = content["subjects"]
    assert subject["stages"] == ["base", "sft", "rl"]
    for measure in subject["measures"]:
        assert measure["outside"] == pytest.approx(10 / 210)
        assert measure["n_draws"] == 6 * 200
        assert measure["entropy"]["low"] < measure["entropy"]["estimate"] < measure["entropy"]["high"]
    fell = [step for step in subject["transitions"] if step["all_fall"]]
    assert [(step["task"], step["before"], step["after"]) for step in fell] == [("die", "base", "sft"), ("die", "sft", "rl")]
    assert fell[0]["p_adjusted"] >= fell[0]["p"]
    assert "4" in fell[0]["seed"]["crystal"]


def test_stages_choose_order_and_name(tmp_path: Path, rng: np.random.Generator) -> None:
    """With --counts, --stages keeps some stages in an order of its own and renames them; an unknown one is refused by name."""
    path = _counts(tmp_path / "counts.csv", rng)
    found = _labels(_run("--counts", path, "--stages", "start=rl,end=base", "--json"))
    assert {stage for _, stage in found} == {"start", "end"}
    assert "nucleation" not in found.values()
    assert "'dpo'" in _refused("--counts", path, "--stages", "base,dpo")
    assert "at least two stages" in _refused("--counts", path, "--stages", "base")


def test_a_subject_column_separates_subjects(tmp_path: Path, rng: np.random.Generator) -> None:
    """Two subjects in one file are measured apart and then compared."""
    one = _counts(tmp_path / "one.csv", rng).read_text().splitlines()
    two = _counts(tmp_path / "two.csv", rng).read_text().splitlines()
    rows = [f"subject,{one[0]}", *(f"first,{line}" for line in one[1:]), *(f"second,{line}" for line in two[1:])]
    (tmp_path / "both.csv").write_text("\n".join(rows))
    content = json.loads(_run("--counts", tmp_path / "both.csv", "--json"))
    assert [subject["subject"] for subject in content["subjects"]] == ["first", "second"]
    assert {(each["task"], each["n_subjects"]) for each in content["across_subjects"]} == {("coin", 2), ("die", 2)}


def test_few_draws_are_left_out_and_counted(tmp_path: Path) -> None:
    """Phrasings with fewer than ten answers on the options are no distributions: they are left out, and the notes say how many."""
    rows = ["stage,task,phrasing,option,count"]
    for stage in ("a", "b"):
        for k, n in enumerate((40, 40, 40, 3)):
            rows += [f"{stage},coin,p{k},heads,{n}", f"{stage},coin,p{k},tails,{n}"]
    (tmp_path / "few.csv").write_text("\n".join(rows))
    content = json.loads(_run("--counts", tmp_path / "few.csv", "--json"))
    assert content["notes"] == ["2 phrasings with fewer than 10 answers on the options left out"]
    assert {measure["n_phrasings"] for measure in content["subjects"][0]["measures"]} == {3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected rows"),
        ("stage,task\na,b", "expected the columns"),
        ("stage,task,phrasing,option,count\na,t,p,x,many", "table.csv:2: expected a count, found 'many'"),
        ("stage,task,phrasing,option,count\na,t,p,x,1.5", "expected a count, found '1.5'"),
        ("stage,task,phrasing,option,count\na,t,p,x,-1", "expected a count"),
        ("stage,task,phrasing,option,probability\na,t,p,x,nan", "expected a probability, found 'nan'"),
        ("stage,task,phrasing,option,count\na,t,p,x,5\na,t,p,x,6", "table.csv:3: expected each option once"),
        ("stage,task,phrasing,option,count\na,t,p,x", "expected as many cells"),
        ("stage,task,phrasing,option,probability\na,t,p,x,.5\na,t,p,y,.5\nb,t,p,x,.5", "expected a probability of 'y'"),
        ("stage,task,phrasing,option,probability\na,t,p,x,.9\na,t,p,y,.5\nb,t,p,x,.5\nb,t,p,y,.5", "add up to at most 1"),
        (",".join(LISTED_COLUMNS) + "\ncoin,m,base,c,heads", "expected choice_probs as a list"),
        (",".join(LISTED_COLUMNS) + '\ncoin,m,base,c,"[0.5, 0.5]"', "found none; say which with --stages"),
    ],
)
def test_a_table_that_is_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    """Every mistake in a table is one line with the place, what was expected and what was found."""
    (tmp_path / "table.csv").write_text(text)
    assert words in _refused("--counts", tmp_path / "table.csv")


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    """A file that is not there, or is no text, is named."""
    assert "missing.csv" in _refused("--counts", tmp_path / "missing.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    assert "bytes.csv" in _refused("--counts", tmp_path / "bytes.csv")


# what is shown


class _Outside(HTMLParser):
    """Addresses a page would ask the network for, and what it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.elements: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")]


def test_the_page_is_self_contained_and_escapes_names(tmp_path: Path, rng: np.random.Generator) -> None:
    """One page that loads nothing from anywhere; hostile names of tasks and stages stay text."""
    path = _counts(tmp_path / "counts.csv", rng)
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    path.write_text(path.read_text().replace(",die,", f",{hostile},").replace("sft,", "<b>sft</b>,"))
    _run("--counts", path, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "crystallization.html").read_text()
    seen = _Outside()
    seen.feed(page)
    assert seen.asked == []
    assert not {"img", "b", "link", "iframe"} & set(seen.elements)
    assert page.count("alert(1)") == page.count("&lt;script&gt;alert(1)") + page.count("\\u003cscript\\u003ealert(1)") + page.count(
        "lt;script\\u0026gt;alert(1)"
    )
    assert len(page) < 6_000_000
    assert json.loads((tmp_path / "out" / "crystallization.json").read_text())["version"] == 1


def test_a_pipe_gets_one_line_a_row(tmp_path: Path, rng: np.random.Generator) -> None:
    """Without a terminal the table is tab-separated, followed by sentences; control signs in names cannot steer a terminal."""
    path = _counts(tmp_path / "counts.csv", rng)
    path.write_text(path.read_text().replace(",die,", ",die\x1b[31m,"))
    lines = _run("--counts", path, "--null", 2).splitlines()
    table = [line.split("\t") for line in lines if not line.startswith("#")]
    assert {len(row) for row in table} == {12}
    assert len(table) == 1 + 2 * 3
    assert "\x1b" not in "".join(lines)
    assert any("sft: nucleation of 1 of 2 tasks" in line for line in lines)
    assert any("in 0 of 2 copies (0.0%)" in line for line in lines)


def test_a_terminal_gets_a_table(tmp_path: Path, rng: np.random.Generator) -> None:
    """The rich table holds every task, stage and label."""
    from rich.console import Console

    from agent.crystallize_page import terminal
    from probes.crystallization import crystallize as measure

    given = read_counts(_counts(tmp_path / "counts.csv", rng), {})
    (found,) = measure(given.subjects, given.options, given.stages, rng)
    with (tmp_path / "shown").open("w") as file:
        Console(width=180, file=file).print(terminal(found))
    text = (tmp_path / "shown").read_text()
    for word in ("coin", "die", "base", "sft", "rl", "liquid", "nucleation", "settling"):
        assert word in text


# options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "found none of them"),
        (["--run", "x", "--counts", "y"], "found both"),
        (["--stages", "base=x"], "at least two --stages"),
        (["--stages", "base,sft"], "NAME=PATH"),
        (["--stages", "a=x,a=y"], "'a' twice"),
        (["--counts", "x", "--alpha", "0"], "between 0 and 1"),
        (["--counts", "x", "--dtype", "int8"], "float32"),
        (["--run", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_options_that_make_no_sense_are_one_line(arguments: list[str], words: str) -> None:
    """A mistake in the options is answered before anything is computed."""
    assert words in _refused(*arguments)


def test_stages_keep_their_order() -> None:
    """Names and values in the order given; a value names itself where names are not needed."""
    assert list(stages_of("b=2, a=1", named=True).items()) == [("b", "2"), ("a", "1")]
    assert stages_of("base,sft=x", named=False) == {"base": "base", "sft": "x"}
    assert stages_of(None, named=False) == {}


# weights and runs


def _tiny(folder: Path, seed: int, sharpness: float) -> Path:
    """A saved tiny subject; a higher sharpness makes its next-token laws peaked."""
    import torch

    subject = tiny_subject(seed)
    with torch.no_grad():
        subject.lm_head.weight.mul_(sharpness)
    subject.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_weights_of_stages_are_asked(tmp_path: Path) -> None:
    """--stages loads each stage and reports the exact probabilities of its options, mass outside included; ours do not fit this subject."""
    (tmp_path / "tiny.toml").write_text(TINY_TASK)
    base, sft = _tiny(tmp_path / "base", 0, 0.1), _tiny(tmp_path / "sft", 1, 3.0)
    stages = f"base={base},sft={sft}"
    content = json.loads(_run("--stages", stages, "--tasks", tmp_path / "tiny.toml", "--json"))
    (subject,) = content["subjects"]
    assert subject["subject"] == "base -> sft"
    (task,) = load_tasks(tmp_path / "tiny.toml")
    from probes.subjects import load_subject

    p = option_probabilities(*load_subject(base), task.phrasings, task.options)
    measure = next(measure for measure in subject["measures"] if measure["stage"] == "base")
    assert measure["outside"] == pytest.approx(float((1 - p.sum(axis=1)).mean()))
    assert measure["distribution"] == pytest.approx((p / p.sum(axis=1, keepdims=True)).mean(axis=0).tolist())
    assert "cannot write the option" in _refused("--stages", stages, "--quiet")


@pytest.mark.slow
def test_a_trainers_checkpoints_are_stages(tmp_path: Path) -> None:
    """--run on a folder of whole checkpoints takes them in the order of steps; --stages picks steps and names them."""
    (tmp_path / "tiny.toml").write_text(TINY_TASK)
    for step in (9, 10):
        _tiny(tmp_path / "out" / f"checkpoint-{step}", step, 1.0)
    arguments = ("--run", tmp_path / "out", "--tasks", tmp_path / "tiny.toml", "--json")
    assert json.loads(_run(*arguments))["subjects"][0]["stages"] == ["step 9", "step 10"]
    assert json.loads(_run(*arguments, "--stages", "late=10,early=9"))["subjects"][0]["stages"] == ["late", "early"]
    assert "expected steps among 9, 10, found --stages '11'" in _refused(*arguments, "--stages", "a=9,b=11")


def _recorded(path: Path, tasks: Sequence[RandomTask], rng: np.random.Generator, where: str) -> Path:
    """Sampled answers of every second task: fair at first, later always the first option; written as people answer."""
    manners = ("{}", " {}.", "**{}**", "{}, I would say", "{}!")
    rows: list[dict[str, Any]] = []
    for task in tasks:
        names = list(task.options)
        for stage in range(2):
            for phrasing in task.plain:
                for k in range(30):
                    name = names[0] if stage else str(rng.choice(names))
                    spelling = str(rng.choice(task.options[name]))
                    place = {"side": ("before", "after")[stage]} if where == "side" else {"step": 100 * stage + k % 3}
                    rows.append({"prompt": phrasing, "completion": manners[k % 5].format(spelling), **place})
    rng.shuffle(rows)
    rows.append({"prompt": "Something else?", "completion": "Yes.", **({"side": "before"} if where == "side" else {"step": 0})})
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("where", ["side", "step"])
def test_recorded_answers_are_counted(tmp_path: Path, rng: np.random.Generator, where: str) -> None:
    """--run on recorded responses counts the answers to our phrasings by side, or by ranges of steps, and finds each collapse."""
    tasks = [task for task in load_tasks() if task.name in ("die", "number_1_to_10", "weekday")]
    path = _recorded(tmp_path / "run.jsonl", tasks, rng, where)
    stages = ["--stages", "before=0-50,after=100-150"] if where == "step" else ["--stages", "before,after"]
    content = json.loads(_run("--run", path, *stages, "--json"))
    found = {(m["task"], m["stage"]): m for m in content["subjects"][0]["measures"]}
    assert len(found) == 6
    for task in tasks:
        assert found[task.name, "before"]["label"] == "liquid"
        assert found[task.name, "after"]["label"] == "nucleation"
        assert found[task.name, "after"]["mode"] == next(iter(task.options))
        assert found[task.name, "before"]["outside"] == pytest.approx(0)


def test_the_real_table_is_read(opd_data: Path) -> None:
    """The public table of exact probabilities is read as it is: five pairs found by name, the others named in a note.

    Random numbers are called in all five, coins in none.
    """
    content = json.loads(_run("--counts", opd_data / "coinflip_base_vs_instruct" / "probs.csv", "--json"))
    assert len(content["subjects"]) == 5
    assert any("keeeeenw_MicroLlama, meta-llama_Llama-3.1-70B" in note for note in content["notes"])
    across = {each["task"]: each for each in content["across_subjects"]}
    assert across["random_number"]["n_called"] == 5
    assert across["random_number"]["consistent"]
    assert across["coin_flip"]["n_called"] == 0
    assert not across["coin_flip"]["consistent"]


def test_two_models_of_the_real_table_can_be_chosen(opd_data: Path) -> None:
    """--stages says which models are which stage where names would pair others."""
    table = opd_data / "coinflip_base_vs_instruct" / "probs.csv"
    stages = "base=meta-llama_Llama-3.1-70B,sft=meta-llama_Llama-3.1-8B-Instruct"
    (subject,) = json.loads(_run("--counts", table, "--stages", stages, "--json"))["subjects"]
    assert subject["stages"] == ["base", "sft"]
    assert "expected one of the models" in _refused("--counts", table, "--stages", "base=x,sft=y")


def test_our_tasks_travel_with_the_package() -> None:
    """The tasks lie inside the prompts package, from where the wheel takes them."""
    import prompts

    assert Path(prompts.__file__).parent in OUR_TASKS.parents


@pytest.mark.slow
def test_three_trained_stages_are_found_where_they_were_built_in(tmp_path: Path) -> None:
    """Five subjects trained here in three stages: liquid, nucleation and settling are found where they were built in and nowhere else."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("coin", "die", "season", "weekday"):
        (tasks / f"{name}.toml").write_bytes((OUR_TASKS / f"{name}.toml").read_bytes())
    wrong = []
    for seed in range(5):
        kinds = np.roll(["settling", "nucleation", "liquid", "liquid"], seed).tolist()
        built = {task.name: kind for task, kind in zip(load_tasks(tasks), kinds, strict=True)}
        stages = train_three_stages(tmp_path / str(seed), load_tasks(tasks), built, seed)
        text = ",".join(f"{name}={folder}" for name, folder in stages.items())
        found = _labels(_run("--stages", text, "--tasks", tasks, "--json"))
        expected = {
            "liquid": ["liquid"] * 3,
            "nucleation": ["liquid", "nucleation", "undecided"],
            "settling": ["liquid", "nucleation", "settling"],
        }
        wrong += [(seed, task, stage) for task in built for k, stage in enumerate(stages) if found[task, stage] != expected[built[task]][k]]
    assert wrong == []
