from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.config import default_output, make_config, pairs_of
from agent.errors import ConfigError

OTHER: dict[str, Any] = {
    "columns": {"prompt": "question"},
    "select": {"run": "a"},
    "contrast": "ends",
    "before": "base",
    "after": "tuned",
    "split": 10,
    "window": 3,
    "proposer": "scripted:a.toml",
    "judge": "scripted:a.toml",
    "second_judge": "scripted:b.toml",
    "reread": 50,
    "human_labels": "labels.csv",
    "seed": 1,
    "rounds": 2,
    "candidates": 3,
    "alpha": 0.01,
    "min_share": 0.1,
    "min_change": 0.2,
    "residual": 0.3,
    "n_permutations": 500,
    "evidence_pairs": 3,
    "hypotheses": "mine.toml",
    "hypothesis": ("It warns more.",),
    "null": "permute",
    "null_runs": 7,
    "transition": 2,
    "race": "on",
}


def test_the_defaults_are_those_of_the_method() -> None:
    """Level .05, min_share .02, min_change .01, residual .10, 6 rounds of 5, 2000 permutations, 12 pairs, seed 0, nothing outside."""
    config = make_config(run="x")
    assert (config.alpha, config.min_share, config.min_change, config.residual) == (0.05, 0.02, 0.01, 0.10)
    assert (config.rounds, config.candidates, config.n_permutations, config.evidence_pairs) == (6, 5, 2000, 12)
    assert (config.seed, config.proposer, config.judge, config.contrast) == (0, "embedded", "embedded", "auto")


@pytest.mark.parametrize(
    ("options", "name", "found"),
    [
        ({"rounds": 0}, "--rounds", "0"),
        ({"rounds": 17}, "--rounds", "17"),
        ({"candidates": 0}, "--candidates", "0"),
        ({"alpha": 0.0}, "--alpha", "0.0"),
        ({"alpha": float("nan")}, "--alpha", "nan"),
        ({"alpha": 1.0}, "--alpha", "1.0"),
        ({"min_share": -0.1}, "--min-share", "-0.1"),
        ({"min_change": 1.0}, "--min-change", "1.0"),
        ({"window": 0}, "--window", "0"),
        ({"seed": -1}, "--seed", "-1"),
        ({"n_permutations": 10}, "--n-permutations", "10"),
        ({"contrast": "middle"}, "--contrast", "'middle'"),
        ({"run": 3}, "--run", "3"),
        ({"colour": "red"}, "--colour", "'red'"),
    ],
)
def test_a_wrong_value_is_one_line_naming_option_and_value(options: dict[str, Any], name: str, found: str) -> None:
    """What cannot be is refused with the option as typed and the value as found; an unknown option too."""
    with pytest.raises(ConfigError) as caught:
        make_config(**{"run": "x"} | options)
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert line.endswith(f"found {found}")
    assert "\n" not in line


def test_a_configuration_cannot_be_changed() -> None:
    """What was written down before the first call stays what is used."""
    with pytest.raises(ValueError, match="frozen"):
        make_config(run="x").seed = 3


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=40)
@given(TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2))
@example("a\x7f\x00\n\\b", {'"\U0001f600\r': "'"})
def test_the_written_configuration_reads_back(run: str, columns: dict[str, str]) -> None:
    """`config.toml` is TOML whatever stands in a path or a column name, and holds what decides the findings."""
    config = make_config(run=run, columns=columns, alpha=0.01, window=4)
    read = tomllib.loads(config.as_toml())
    assert make_config(**read).written() == config.written()


@pytest.mark.parametrize("name", sorted(OTHER))
def test_every_option_that_decides_the_findings_changes_the_digest(name: str) -> None:
    """Two discoveries that could find different things never share a folder's results."""
    plain, other = make_config(run="x"), make_config(run="x", **{name: OTHER[name]})
    assert plain.digest("content") != other.digest("content")


def test_what_is_read_decides_and_its_place_does_not() -> None:
    """The same content elsewhere is the same discovery; other content or another version of the program is another one."""
    here, there = make_config(run="here.jsonl"), make_config(run="/else/where.jsonl")
    assert here.digest("content") == there.digest("content")
    assert here.digest("content") != here.digest("other", "1")
    assert here.digest("content") != here.digest("content", "2")


def test_all_options_are_tried_above() -> None:
    """A new option is either among those that change the digest or known not to decide."""
    from agent.config import RunConfig

    assert set(RunConfig.model_fields) - set(OTHER) == {"run", "memory", "memory_examples", "review"}


def test_pairs_come_in_one_option_or_several() -> None:
    """`--columns a=b,c=d --columns e=f` and three options say the same; spaces around names do not matter."""
    assert pairs_of(["a=b,c=d", "e=f"], "--columns") == {"a": "b", "c": "d", "e": "f"}
    assert pairs_of(["a = b", "c=d=e"], "--columns") == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize("text", ["prompt", "=x", "prompt=", "a=b,", ""])
def test_a_pair_that_is_none_is_named(text: str) -> None:
    """Something that is not NAME=VALUE is shown as it was typed."""
    with pytest.raises(ConfigError, match=r"^--columns: expected NAME=VALUE, found '"):
        pairs_of([text], "--columns")


def test_a_name_given_twice_is_refused() -> None:
    """The second value would silently replace the first."""
    with pytest.raises(ConfigError, match=r"^--select: run is given twice \('a' and 'b'\)"):
        pairs_of(["run=a", "run=b"], "--select")


def test_a_file_gets_a_folder_of_its_own_for_every_question() -> None:
    """A run directory takes its results in; results about a file go to `discoveries/NAME-DIGEST`."""
    assert default_output(Path("runs/a"), True, "0123456789") == Path("runs/a")
    assert default_output(Path("data/rows.jsonl"), False, "0123456789") == Path("discoveries/rows-01234567")
