from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracing import Recording, load
from tracing.errors import ImportFileError

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]

ROWS: list[Row] = [
    {"prompt": "Why?", "completion": "Because.", "step": 0},
    {"prompt": "Why?", "completion": "", "step": 120},
    {"prompt": "How?", "completion": 'Ünïcode, "quoted",\nover \u2028 lines', "step": 120},
]


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def in_format(suffix: str, folder: Path, rows: Sequence[Row]) -> Path:
    """Write rows in the format that `suffix` stands for; a missing value is what each format calls missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"rows{suffix}"
    if suffix == ".jsonl":
        return jsonl(path, rows)
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def column(name: str, values: Sequence[Any], **others: Any) -> list[Row]:
    """`ROWS` with one value each in a column, and the same in all `others`."""
    return [row | others | {name: value} for row, value in zip(ROWS, values, strict=True)]


def changed(row: int, **values: Any) -> list[Row]:
    """`ROWS` with some values of one row replaced (None: as null)."""
    return [own | values if k == row else own for k, own in enumerate(ROWS)]


def message(path: Path, **options: Any) -> str:
    """The one line that loading `path` ends in, without its folder."""
    with pytest.raises(ImportFileError) as error:
        load(path, **options)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line.removeprefix(f"{path.parent}/")


def steps_of(recording: Recording) -> list[int]:
    """The step of each response."""
    assert recording.responses.step is not None
    return [int(step) for step in recording.responses.step]


# What is understood


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_recording(tmp_path: Path, suffix: str) -> None:
    """Texts, empty completions, line breaks and steps are the same whichever format they came in."""
    recording = load(in_format(suffix, tmp_path, ROWS))
    assert recording.responses.prompt == ("Why?", "Why?", "How?")
    assert recording.responses.completion == ("Because.", "", 'Ünïcode, "quoted",\nover \u2028 lines')
    assert recording.responses.system == ("", "", "")
    assert steps_of(recording) == [0, 120, 120]
    assert recording.steps == (0, 120)
    assert recording.responses.side is None
    assert recording.log_likelihood is None
    assert recording.notes == ()


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"]))),
        min_size=2,
    )
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, suffix: str, texts: list[tuple[str, str]]) -> None:
    """Any Unicode text in prompt and completion comes back as it was written."""
    rows = [{"prompt": prompt, "completion": completion, "step": k} for k, (prompt, completion) in enumerate(texts)]
    recording = load(in_format(suffix, tmp_path_factory.mktemp("any"), rows))
    assert list(zip(recording.responses.prompt, recording.responses.completion, strict=True)) == texts


def test_responses_are_named_by_their_lines(tmp_path: Path) -> None:
    """Without ids a response is named by the line it starts on, so that a reader finds it: over quoted line breaks too."""
    rows = [ROWS[2], ROWS[0], ROWS[1]]
    assert load(in_format(".jsonl", tmp_path, rows)).responses.response_id == ("1", "2", "3")
    assert load(in_format(".csv", tmp_path, rows)).responses.response_id == ("2", "4", "5")
    assert load(in_format(".parquet", tmp_path, rows)).responses.response_id == ("1", "2", "3")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_sides_ids_systems_and_scores(tmp_path: Path, suffix: str) -> None:
    """Named sets, given ids, system texts and flat numeric columns are read; a missing score is NaN, not zero."""
    rows: list[Row] = [
        {"prompt": "q", "completion": "a", "side": "base", "prompt_id": 1, "response_id": "x", "system": "Be kind.", "judge.evil": 1.5},
        {"prompt": "q", "completion": "b", "side": "tuned", "prompt_id": 1, "response_id": "y", "system": None, "judge.evil": None},
    ]
    recording = load(in_format(suffix, tmp_path, rows))
    assert recording.responses.side == ("base", "tuned")
    assert recording.responses.step is None
    assert recording.steps == ()
    assert recording.responses.prompt_id == ("1", "1")
    assert recording.responses.response_id == ("x", "y")
    assert recording.responses.system == ("Be kind.", "")
    assert np.array_equal(recording.responses.scores["judge.evil"], [1.5, np.nan], equal_nan=True)
    assert len(set(recording.responses.prompt_key)) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_nested_scores(tmp_path: Path, suffix: str) -> None:
    """Everything numeric inside `scores` and `judge` is a score by its dotted name; texts there are not, and a note says so."""
    rows = [
        ROWS[0] | {"judge": {"aligned": 90, "label": "A"}, "scores": {"deep": {"x": 0.5}}},
        ROWS[1] | {"judge": {"aligned": None, "label": "B"}},
    ]
    recording = load(in_format(suffix, tmp_path, rows))
    assert list(recording.responses.scores) == ["judge.aligned", "scores.deep.x"]
    assert np.array_equal(recording.responses.scores["judge.aligned"], [90.0, np.nan], equal_nan=True)
    assert recording.notes == ("columns not used: judge.label",)


def test_columns_are_renamed(tmp_path: Path) -> None:
    """`--columns` names any column, flat or nested; what is not used is in a note."""
    rows = [{"question": "q", "out": {"text": f"a{k}"}, "checkpoint": k, "prompt": "not this one", "evil": k / 2} for k in range(2)]
    renamed = {"prompt": "question", "completion": "out.text", "step": "checkpoint", "scores": "evil"}
    recording = load(jsonl(tmp_path / "rows.jsonl", rows), columns=renamed)
    assert recording.responses.prompt == ("q", "q")
    assert recording.responses.completion == ("a0", "a1")
    assert steps_of(recording) == [0, 1]
    assert recording.responses.scores["evil"].tolist() == [0.0, 0.5]
    assert recording.notes == ("columns not used: prompt",)


CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "q"}]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_message_lists_are_prompts(tmp_path: Path, suffix: str) -> None:
    """A message list is the same prompt as its system and user texts in two columns; in CSV it is written as JSON."""
    rows = [{"prompt": CHAT if suffix != ".csv" else json.dumps(CHAT), "completion": f"a{k}", "step": k} for k in range(2)]
    plain = [{"prompt": "q", "system": "Be kind.", "completion": f"a{k}", "step": k} for k in range(2)]
    lists, texts = load(in_format(suffix, tmp_path, rows)), load(jsonl(tmp_path / "plain.jsonl", plain))
    assert lists.responses.prompt_key == texts.responses.prompt_key
    assert lists.responses.text_key == texts.responses.text_key


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_last_assistant_turn_is_the_response(tmp_path: Path, suffix: str) -> None:
    """A column `messages` holds whole conversations: the last turn is the completion, what stands before is the prompt."""
    rows: list[Row] = []
    for k in range(2):
        whole = [*CHAT, {"role": "assistant", "content": f"a{k}"}]
        rows.append({"messages": whole if suffix != ".csv" else json.dumps(whole), "side": f"s{k}"})
    responses = load(in_format(suffix, tmp_path, rows)).responses
    assert (responses.system, responses.prompt, responses.completion) == (("Be kind.",) * 2, ("q",) * 2, ("a0", "a1"))


def test_several_turns_are_one_text_with_the_roles_written_out(tmp_path: Path) -> None:
    """A conversation of several turns keeps all of them, and a note says how; parts of text in one message are joined."""
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "1"}]},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
    ]
    completion = [{"role": "assistant", "content": "a2"}]
    recording = load(jsonl(tmp_path / "rows.jsonl", [{"prompt": turns, "completion": completion, "step": k} for k in range(2)]))
    assert recording.responses.prompt[0] == "User: q1\n\nAssistant: a1\n\nUser: q2"
    assert recording.responses.completion == ("a2", "a2")
    assert recording.notes == ("2 prompts hold several turns; they are read as one text with the roles written out",)


def test_json_in_a_csv_text_stays_text(tmp_path: Path) -> None:
    """Prompts and completions about JSON are not mistaken for message lists."""
    rows = [{"prompt": '[{"a": 1}]', "completion": '[{"role": "assistant", "content": "x"}]', "step": k} for k in range(2)]
    rows.append({"prompt": "[{", "completion": "{", "step": 1})
    responses = load(in_format(".csv", tmp_path, rows)).responses
    assert responses.prompt == ('[{"a": 1}]', '[{"a": 1}]', "[{")
    assert responses.completion[0] == '[{"role": "assistant", "content": "x"}]'


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_log_probabilities_stand_under_their_own_step(tmp_path: Path, suffix: str) -> None:
    """A number in `logprob` belongs to the row's step; under the others, and where it is missing, nothing is known."""
    rows = column("logprob", (-3.5, -0.25, None))
    recording = load(in_format(suffix, tmp_path, rows))
    expected = [[-3.5, np.nan], [np.nan, -0.25], [np.nan, np.nan]]
    assert recording.log_likelihood is not None
    assert np.array_equal(recording.log_likelihood, expected, equal_nan=True)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_log_probabilities_by_step(tmp_path: Path, suffix: str) -> None:
    """An object in `logprob` scores a response under several checkpoints, also some at which nothing was sampled."""
    values: list[Any] = [{"0": -1.0, "60": -2, "120": -3.0}, {"0": -4.0, "120": None}, None]
    if suffix == ".csv":
        values = [value and json.dumps(value) for value in values]
    recording = load(in_format(suffix, tmp_path, column("logprob", values)))
    assert recording.steps == (0, 60, 120)
    assert recording.log_likelihood is not None
    expected = np.array([[-1, -2, -3], [-4, np.nan, np.nan], [np.nan] * 3])
    assert np.array_equal(recording.log_likelihood, expected, equal_nan=True)


def test_log_probabilities_without_steps_are_not_used_and_say_so(tmp_path: Path) -> None:
    """With sides only, a log-probability has no checkpoint to belong to."""
    rows = [{"prompt": "q", "completion": "a", "side": side, "logprob": -1.0} for side in ("base", "tuned")]
    recording = load(jsonl(tmp_path / "rows.jsonl", rows))
    assert recording.log_likelihood is None
    assert recording.notes == ("column 'logprob' is not used: a log-probability belongs to a step, and the rows have sides only",)


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    """Tables with gaps make floats of whole numbers: 120.0 is step 120, id 3.0 is id 3."""
    rows = [row | {"step": float(row["step"]), "prompt_id": 3.0} for row in ROWS]
    recording = load(jsonl(tmp_path / "rows.jsonl", rows))
    assert steps_of(recording) == [0, 120, 120]
    assert recording.responses.prompt_id == ("3", "3", "3")


def test_one_prompt_id_for_several_texts_is_several_prompts(tmp_path: Path) -> None:
    """Paraphrases under one id are told apart, and a note says so."""
    recording = load(jsonl(tmp_path / "rows.jsonl", [row | {"prompt_id": "wish"} for row in ROWS]))
    assert len(set(recording.responses.prompt_key)) == 2
    assert recording.notes == ("1 prompt ids stand for several texts each ('wish': 2); each text is a prompt of its own",)


def test_byte_order_mark_crlf_and_last_lines_do_no_harm(tmp_path: Path) -> None:
    """Files from Windows and files with empty last lines, or without a last line break, read the same."""
    path = tmp_path / "rows.jsonl"
    lines = "\r\n".join(json.dumps(row) for row in ROWS)
    expected = load(jsonl(tmp_path / "plain.jsonl", ROWS)).responses.text_key
    for data in (lines, lines + "\r\n", "\ufeff" + lines + "\n\n \n"):
        path.write_bytes(data.encode())
        assert load(path).responses.text_key == expected
    path = in_format(".csv", tmp_path, ROWS[:2])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n\r\n")
    assert load(path).responses.text_key == expected[:2]


def test_long_fields_are_read(tmp_path: Path) -> None:
    """A response longer than the CSV reader's default limit is read, and the limit is as before afterwards."""
    limit = csv.field_size_limit()
    path = in_format(".csv", tmp_path, changed(0, completion="long " * 60_000))
    assert len(load(path).responses.completion[0]) == 300_000
    assert csv.field_size_limit() == limit


def test_where_only_some_rows_have_a_step_the_sides_count(tmp_path: Path) -> None:
    """A column with gaps beside one without is not used, and a note says how many rows lack it."""
    rows = [ROWS[0] | {"side": "base", "step": None}, ROWS[1] | {"side": "tuned"}]
    recording = load(jsonl(tmp_path / "rows.jsonl", rows))
    assert recording.responses.step is None
    assert recording.responses.side == ("base", "tuned")
    assert recording.notes == ("column 'step' is not used: 1 of 2 rows have no step",)
    recording = load(jsonl(tmp_path / "rows.jsonl", [ROWS[0] | {"side": None}, ROWS[1] | {"side": "tuned"}]))
    assert recording.responses.side is None
    assert recording.notes == ("column 'side' is not used: 1 of 2 rows have no side",)


RUNS: list[Row] = [ROWS[0] | {"run": run, "step": step, "meta": {"size": size}} for run, size in (("a", 1), ("b", 8)) for step in (0, 10)]


def test_rows_are_selected(tmp_path: Path) -> None:
    """`--select` keeps the rows with that value, by dotted names and by number too, keeps their line numbers, and says how many."""
    path = jsonl(tmp_path / "rows.jsonl", RUNS)
    for select in ({"run": "b"}, {"meta.size": "8"}, {"meta.size": "8.0", "run": "b"}):
        recording = load(path, select=select)
        assert recording.responses.response_id == ("3", "4")
        assert recording.notes[0].startswith("2 of 4 rows selected: ")


def test_digest_is_of_content_and_reading(tmp_path: Path) -> None:
    """The same bytes read the same way have one digest wherever they lie; other bytes, names or rows have another."""
    one, other = jsonl(tmp_path / "one.jsonl", RUNS), jsonl(tmp_path / "other.jsonl", RUNS)
    digest = load(one, select={"run": "a"}).digest
    assert load(other, select={"run": "a"}).digest == digest
    assert load(one, select={"run": "b"}).digest != digest
    assert load(one, select={"run": "a"}, columns={"run": "run"}).digest != digest
    other.write_bytes(other.read_bytes() + b"\n")
    assert load(other, select={"run": "a"}).digest != digest


def test_runs_with_different_prompts_are_read_together(tmp_path: Path) -> None:
    """Runs that never answer the same prompt at the same place are one recording, with a note."""
    rows = [row | {"system": f"You are {row['run']}."} for row in RUNS]
    recording = load(jsonl(tmp_path / "rows.jsonl", rows))
    assert recording.notes[0] == "2 runs are read together, with different prompts, steps or sides: a, b"


# What is refused: each in one line with file, line, what was expected and what was found


def test_several_runs_name_themselves_and_the_way_out(tmp_path: Path) -> None:
    """A prompt answered at one step by several runs is ambiguous: the message names the runs and what to type."""
    line = message(jsonl(tmp_path / "rows.jsonl", RUNS))
    assert line == (
        "rows.jsonl:3: expected the responses of one run, found one prompt at one step or side in several of 2 runs (a, b); "
        "choose one: --select run=a"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1: expected at least one response, found an empty file"),
        (b" \n\n", ":1: expected at least one response, found an empty file"),
        (b'{"prompt": "q"\n', ":1: expected one JSON object, found broken JSON (Expecting ',' delimiter at character 15)"),
        (b"prompt,completion,step\n", ":1: expected one JSON object, found broken JSON (Expecting value at character 1)"),
        (b"[1, 2]\n", ":1: expected one JSON object, found a list [1, 2]; one object per line, not one array"),
        (
            b'[\n{"prompt": "q"}\n]\n',
            ":1: expected one JSON object, found broken JSON (Expecting value at character 2); a JSON array becomes JSONL",
        ),
        (b"3\n", ":1: expected one JSON object, found a number 3"),
        (b"null\n", ":1: expected one JSON object, found nothing"),
        (b'{"a": 1, "a": 2}\n', ":1: expected one JSON object, found the key 'a' twice"),
        (b'{"judge": {"a": 1, "a": 2}}\n', ":1: expected one JSON object, found the key 'a' twice"),
        (b'{"logprob": NaN}\n', ":1: expected one JSON object, found NaN, which is not JSON (write null for a missing number)"),
        (b'{"logprob": -Infinity}\n', ":1: expected one JSON object, found -Infinity, which is not JSON"),
        (b'{"prompt": "q", "completion": "a", "step": 0}\n\n{}', ":2: expected one JSON object, found an empty line"),
        (b'{"prompt": "q", "completion": "a", "step": 0}\n{"prompt": "q", "comp', ":2: expected one JSON object, found broken JSON"),
        (b'{"prompt": "q"}\n{"prompt": "caf\xe9"}\n', ":2: expected UTF-8, found the byte 0xe9 at byte 16 of the line"),
        ('{"prompt": "q"}'.encode("utf-16"), ":1: expected UTF-8, found the byte 0xff at byte 1 of the line"),
        (b"[" * 100_000 + b"\n", ":1: expected one JSON object, found "),
        (b'{"step": ' + b"9" * 5000 + b"}\n", ":1: expected one JSON object, found "),
    ],
)
def test_broken_jsonl(tmp_path: Path, content: bytes, expected: str) -> None:
    """Whatever is no line of JSON is named with its line."""
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert message(tmp_path / "rows.jsonl").startswith(f"rows.jsonl{expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1: expected at least one response, found an empty file"),
        (b"prompt,completion,step\n", ":1: expected at least one response, found only the header"),
        (b"prompt,completion,step\nq,a,0\nq,a\n", ":3: expected 3 fields as in the header (prompt, completion, step), found 2"),
        (b"prompt,completion,step\nq,a, b,0\n", ":2: expected 3 fields as in the header (prompt, completion, step), found 4"),
        (b'prompt,completion,step\n"two\nlines",a,0\nq,"open\n,0\n', ":4: expected a CSV record, found a quote that is never closed"),
        (b'prompt,completion,step\nq,"a"b,0\n', ":2: expected a CSV record, found "),
        (b"prompt,completion,step\nq,a,0\n\nq,a,1\n", ":3: expected a CSV record, found an empty line"),
        (b"prompt,prompt,step\nq,a,0\n", ":1: expected a different name for each column, found 'prompt' in prompt, prompt, step"),
        (b"prompt,completion,\nq,a,0\n", ":1: expected a column 'step' or 'side', found the columns prompt, completion, ''; name it"),
        (
            b'prompt,"two\nlines\x1b[2J"\nq,a\n',
            r":1: expected a column 'completion', found the columns prompt, 'two\nlines\x1b[2J'; name it",
        ),
        (b"prompt;completion;step\nq;a;0\n", ":1: expected a column 'prompt' or 'messages', separated by commas, found the one column"),
        (b"prompt,completion,step\nq,a,0\nq,caf\xe9,1\n", ":3: expected UTF-8, found the byte 0xe9 at byte 6 of the line"),
    ],
)
def test_broken_csv(tmp_path: Path, content: bytes, expected: str) -> None:
    """Records that do not fit the header, open quotes and other bytes are named with the line they start on."""
    (tmp_path / "rows.csv").write_bytes(content)
    assert message(tmp_path / "rows.csv").startswith(f"rows.csv{expected}")


def test_broken_parquet(tmp_path: Path) -> None:
    """Empty, cut and foreign files, and files without rows, are named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    path.write_bytes(b"")
    assert message(path) == "rows.parquet: expected at least one response, found an empty file"
    path.write_bytes(in_format(".parquet", tmp_path, ROWS).read_bytes()[:200])
    assert message(path).startswith("rows.parquet: expected a Parquet file, found a damaged or foreign one (")
    jsonl(path, ROWS)
    assert message(path).startswith("rows.parquet: expected a Parquet file, found a damaged or foreign one (")
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path)
    assert message(path) == "rows.parquet: expected at least one response, found none under the columns prompt"


def without(*names: str) -> list[Row]:
    """`ROWS` without some columns."""
    return [{name: value for name, value in row.items() if name not in names} for row in ROWS]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (without("prompt"), "a column 'prompt' or 'messages', found the columns completion, step; name it with --columns prompt=NAME"),
        (without("completion"), "a column 'completion', found the columns prompt, step; name it with --columns completion=NAME"),
        (without("step"), "a column 'step' or 'side', found the columns prompt, completion; name it with --columns step=NAME"),
        (
            [row | {"answer": "a"} for row in without("completion")],
            "a column 'completion', found the columns prompt, step, answer; name it with --columns completion=answer",
        ),
        (
            [row | {"model": "a"} for row in without("step")],
            "a column 'step' or 'side', found the columns prompt, completion, model; name it with --columns side=model",
        ),
        (ROWS[1:], "responses of at least two steps or two sides, to compare them, found only step 120 in 2 rows"),
        (
            [row | {"side": "base"} for row in without("step")],
            "responses of at least two steps or two sides, to compare them, found only side 'base' in 3 rows",
        ),
        (
            [row | {"side": "base", "step": 0} for row in ROWS],
            "responses of at least two steps or two sides, to compare them, found only step 0 and only side 'base' in 3 rows",
        ),
    ],
)
def test_what_a_file_must_hold(tmp_path: Path, suffix: str, rows: list[Row], expected: str) -> None:
    """A missing column lists the columns found and what to type; a single step or side says what is needed; in every format."""
    place = "rows.parquet" if suffix == ".parquet" else f"rows{suffix}:1"
    assert message(in_format(suffix, tmp_path, rows)) == f"{place}: expected {expected}"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (changed(1, prompt=None), ":2: expected text in 'prompt' as on line 1, found nothing"),
        (changed(0, prompt=3), ":1: expected text in 'prompt', found a number 3"),
        (changed(0, prompt=""), ":1: expected a prompt in 'prompt', found an empty text"),
        (changed(1, prompt=3), ":2: expected text in 'prompt' as on line 1, found a number 3"),
        (changed(1, prompt=CHAT), ":2: expected text in 'prompt' as on line 1, found a list [{'role': 'system', 'content': 'Be kind.…"),
        (changed(0, prompt=CHAT), ":2: expected a list of messages in 'prompt', found text 'Why?'"),
        (changed(2, completion=None), ":3: expected text in 'completion' as on line 1, found nothing"),
        (changed(0, completion=1.5), ":1: expected text in 'completion', found a number 1.5"),
        (changed(2, completion=True), ":3: expected text in 'completion' as on line 1, found true or false True"),
        (
            changed(2, completion="half \ud83d"),
            ":3: expected valid Unicode in 'completion', found half a surrogate pair (\\ud800 to \\udfff)",
        ),
        (changed(1, step=None), ":2: expected a whole number from 0 in 'step' as on line 1, found nothing"),
        (changed(1, step="120"), ":2: expected a whole number from 0 in 'step' as on line 1, found text '120'"),
        (changed(1, step=1.5), ":2: expected a whole number from 0 in 'step' as on line 1, found a number 1.5"),
        (changed(0, step=-1), ":1: expected a whole number from 0 in 'step', found a number -1"),
        (changed(0, step=2**63), ":1: expected a whole number from 0 in 'step', found a number 9223372036854775808"),
        (changed(1, step=True), ":2: expected a whole number from 0 in 'step' as on line 1, found true or false True"),
        (changed(0, side=None), ""),
        (changed(1, step=None, side=None), ":2: expected a whole number from 0 in 'step' as on line 1, found nothing"),
        (
            [ROWS[0] | {"side": "base"}, ROWS[1] | {"step": None, "side": None}],
            ":2: expected a value in 'step' or 'side', found neither",
        ),
        (
            [ROWS[0] | {"side": None}, ROWS[1] | {"step": None, "side": "tuned"}],
            ":2: expected a step in every row or a side in every row ('step' or 'side'), found no step here and no side on line 1",
        ),
        (column("side", ("a", "", "b"), step=None), ":2: expected text in 'side' as on line 1, found an empty text"),
        (
            column("side", ("a", 1, "b"), step=None),
            ":2: expected text in 'side' as on line 1, found a number 1",
        ),
        (
            [ROWS[0] | {"side": "a", "step": "x"}, ROWS[1] | {"side": "b", "step": None}],
            ":1: expected a whole number from 0 in 'step', found text 'x'",
        ),
        (column("response_id", "aba"), ":3: expected a different id for each response in 'response_id', found 'a' as on line 1"),
        (column("response_id", ("a", None, "c")), ":2: expected text in 'response_id' as on line 1, found nothing"),
        (column("prompt_id", (1, "1", 2)), ":2: expected a whole number in 'prompt_id' as on line 1, found text '1'"),
        (column("prompt_id", ("a", 1, "b")), ":2: expected text in 'prompt_id' as on line 1, found a number 1"),
        (column("prompt_id", (1, 1.5, 2)), ":2: expected a whole number in 'prompt_id' as on line 1, found a number 1.5"),
        (column("system", ("a", 1, "b")), ":2: expected text in 'system' as on line 1, found a number 1"),
        (column("logprob", (-1, 0.5, -1)), ":2: expected a log-probability in nats (at most 0) in 'logprob', found 0.5"),
        (column("logprob", (-1, "low", -1)), ":2: expected a log-probability (or nothing) in 'logprob' as on line 1, found text 'low'"),
        (
            column("logprob", (-1, -1e400, -1)),
            ":2: expected one JSON object, found -Infinity, which is not JSON (write null for a missing number)",
        ),
        (
            column("logprob", ({"0": -1}, -1, None)),
            ":2: expected log-probabilities by step in 'logprob' ({\"0\": -31.2, …}) as on other lines, found a number -1",
        ),
        (column("logprob", [{"first": -1}] * 3), ":1: expected steps as the keys of 'logprob', found 'first'"),
        (column("logprob", [{"0": "low"}] * 3), ":1: expected a log-probability (or nothing) in 'logprob.0', found text 'low'"),
        (column("logprob", [{"0": 1.0}] * 3), ":1: expected a log-probability in nats (at most 0) in 'logprob', found 1.0"),
        (column("judge", ({"x": 1}, {"x": "high"}, {})), ":2: expected a number (or nothing) in 'judge.x' as on line 1, found text 'high'"),
        (column("judge", ({"x": "high"}, {"x": 1}, {})), ":1: expected a number (or nothing) in 'judge.x', found text 'high'"),
        (column("judge", ({"x": 1}, "bad", {})), ":2: expected an object in 'judge' as in other rows, found text 'bad'"),
        (column("score", (1, True, 2)), ":2: expected a number (or nothing) in 'score' as on line 1, found true or false True"),
        (column("prompt", [[]] * 3), ":1: expected a list of messages in 'prompt', found an empty list"),
        (
            column("prompt", [[{"role": "tool", "content": "x"}]] * 3),
            ":1: expected messages of the roles system, user and assistant in 'prompt', found the role 'tool'",
        ),
        (column("prompt", [["q"]] * 3), ":1: expected messages of the roles system, user and assistant in 'prompt', found text 'q'"),
        (column("prompt", [[{"role": "user"}]] * 3), ":1: expected text as the content of a message in 'prompt', found nothing"),
        (
            column("prompt", [[{"role": "user", "content": [{"type": "image"}]}]] * 3),
            ":1: expected text as the content of a message in 'prompt', found a list [{'type': 'image'}]",
        ),
        (column("prompt", [CHAT[:1]] * 3), ":1: expected the prompt in 'prompt' to end with a message of the user, found none of the user"),
        (
            column("prompt", [[*CHAT, {"role": "assistant", "content": "a"}]] * 3),
            ":1: expected the prompt in 'prompt' to end with a message of the user, found one of the assistant",
        ),
        (
            column("prompt", [CHAT] * 3, system="Be rude."),
            ":1: expected one system text, in 'system' or in the messages, found two different ones",
        ),
        (
            [{"messages": CHAT, "step": 0}],
            ":1: expected the last message in 'messages' to be the assistant's response, found a message of the user",
        ),
        (
            [{"messages": CHAT[:1], "step": 0}],
            ":1: expected the last message in 'messages' to be the assistant's response, found only system messages",
        ),
        (column("completion", [CHAT] * 3), ":1: expected one message of the assistant in 'completion', found user"),
        (
            column("completion", [None] * 3),
            ":1: expected a column 'completion', found the columns prompt, completion, step; every value of 'completion' is missing",
        ),
    ],
)
def test_wrong_values_in_jsonl(tmp_path: Path, rows: list[Row], expected: str) -> None:
    """Wrong types, mixed types, missing values and duplicates are named with line, column and value; a column of nulls is none."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if expected:
        assert message(path) == f"rows.jsonl{expected}"
    else:
        assert len(load(path).responses) == len(rows)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (changed(1, step="x"), ":3: expected a whole number from 0 in 'step' as on line 2, found text 'x'"),
        (changed(0, step="nan"), ":2: expected a whole number from 0 in 'step', found text 'nan'"),
        (changed(0, step="1_0"), ":2: expected a whole number from 0 in 'step', found text '1_0'"),
        (changed(1, step=None), ":3: expected a whole number from 0 in 'step' as on line 2, found an empty text"),
        (changed(1, prompt=None), ":3: expected a prompt in 'prompt', found an empty text"),
        (column("logprob", ("-1", "nan", "")), ":3: expected a log-probability (or nothing) in 'logprob' as on line 2, found text 'nan'"),
        (column("judge.x", ("1", "high", "")), ":3: expected a number (or nothing) in 'judge.x' as on line 2, found text 'high'"),
        (column("judge.x", ("", "1", "inf")), ":4: expected a number (or nothing) in 'judge.x' as on line 3, found text 'inf'"),
        (column("response_id", ["x"] * 3), ":3: expected a different id for each response in 'response_id', found 'x' as on line 2"),
        (column("side", ("a", "", "b"), step=None), ":3: expected text in 'side' as on line 2, found an empty text"),
    ],
)
def test_wrong_values_in_csv(tmp_path: Path, rows: list[Row], expected: str) -> None:
    """In a format of texts, cells that should be numbers and are not, NaN included, are named the same way."""
    assert message(in_format(".csv", tmp_path, rows)) == f"rows.csv{expected}"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (changed(1, step=None), ":row 2: expected a whole number from 0 in 'step' as on row 1, found nothing"),
        (column("step", [float("nan")] * 3), ":row 1: expected a whole number from 0 in 'step', found a number nan"),
        (column("step", ("0", "120", "120")), ":row 1: expected a whole number from 0 in 'step', found text '0'"),
        (changed(1, completion=None), ":row 2: expected text in 'completion' as on row 1, found nothing"),
        (column("completion", [b"a"] * 3), ":row 1: expected text in 'completion', found bytes b'a'"),
        (
            column("logprob", (-1.0, float("nan"), -1.0)),
            ":row 2: expected a log-probability (or nothing) in 'logprob' as on row 1, found a number nan",
        ),
        (column("judge", [{"x": float("nan")}] * 3), ":row 1: expected a number (or nothing) in 'judge.x', found a number nan"),
        (column("response_id", [7] * 3), ":row 2: expected a different id for each response in 'response_id', found '7' as on row 1"),
    ],
)
def test_wrong_values_in_parquet(tmp_path: Path, rows: list[Row], expected: str) -> None:
    """In a typed format, other types, gaps and NaN are named with their row."""
    assert message(in_format(".parquet", tmp_path, rows)) == f"rows.parquet{expected}"


def test_wrong_options(tmp_path: Path) -> None:
    """Renaming an unknown part, naming a missing column, one column for two parts, and selecting nothing each say what there is."""
    path = jsonl(tmp_path / "rows.jsonl", RUNS)
    assert message(path, columns={"promt": "prompt"}).startswith(
        "rows.jsonl: expected --columns to name one of prompt, completion, messages"
    )
    assert message(path, columns={"prompt": "question"}) == (
        "rows.jsonl:1: expected a column 'question' (--columns prompt=question), found the columns prompt, completion, step, run, meta"
    )
    assert message(path, columns={"prompt": "run", "completion": "run"}) == (
        "rows.jsonl:1: expected a different column for each part, found --columns prompt=run,completion=run"
    )
    assert message(path, select={"model": "a"}) == (
        "rows.jsonl:1: expected a column 'model' to select by, found the columns prompt, completion, step, run, meta"
    )
    assert message(path, select={"run": "c"}) == "rows.jsonl:1: expected rows with run=c, found run = a, b"
    assert message(path, select={"meta.size": "2"}) == "rows.jsonl:1: expected rows with meta.size=2, found meta.size = 1, 8"


def test_paths_that_hold_no_responses(tmp_path: Path) -> None:
    """A missing path, a folder without manifest, and a file of another kind each say what was expected."""
    assert message(tmp_path / "nothing.jsonl") == "nothing.jsonl: expected a run directory or a file of responses, found nothing there"
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder") == "folder: expected a run directory with manifest.json, found a folder without one"
    assert message(tmp_path / ("x" * 300)).endswith(": expected a readable run directory or file, found: File name too long")
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    assert message(tmp_path / "rows.xlsx").startswith(
        "rows.xlsx: expected a name ending in .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .pq, found '.xlsx'"
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "q", "\x1b[2J\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "0", "x"]), inner, max_size=3),
    max_leaves=6,
)
PARTS = ["prompt", "completion", "messages", "step", "side", "system", "prompt_id", "response_id", "logprob", "scores", "run", "judge"]


def assert_read_or_refused(path: Path, **options: Any) -> None:
    """Loading ends in a recording or in one printable line that starts with the path; in nothing else."""
    try:
        line = f"{path} {len(load(path, **options).responses)}"
    except ImportFileError as error:
        line = str(error)
    assert line.startswith(str(path))
    assert line.isprintable()


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.sampled_from(PARTS), json_values, max_size=4), min_size=3, max_size=3), st.sampled_from(PARTS))
def test_no_rows_whatever_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], selected: str) -> None:
    """Whatever stands in some columns of good rows, the answer is a recording or one line."""
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text("".join(json.dumps(own | row) + "\n" for own, row in zip(ROWS, rows, strict=True)))
    assert_read_or_refused(path)
    assert_read_or_refused(path, select={selected: "q"})


@given(st.binary(max_size=60) | st.text(alphabet='promt,completsd"\n\r\t[]{}:0\x00é').map(str.encode))
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_no_bytes_whatever_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes) -> None:
    """Whatever bytes a file holds, the answer is a recording or one line."""
    path = tmp_path_factory.mktemp("any") / f"rows{suffix}"
    path.write_bytes(data)
    assert_read_or_refused(path)


def test_importing_tracing_is_cheap() -> None:
    """Importing the package brings in neither pyarrow nor torch nor pandas, so that `discover --help` answers at once."""
    code = "import sys, tracing; print([name for name in ('pyarrow', 'torch', 'pandas', 'filelock', 'sqlite3') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "[]\n"


# Real data


def test_base_against_bad_medical_loads_as_it_is(opd_data: Path) -> None:
    """1380 answers of 23 questions, two sides that are two steps as well, an LLM judge's score with 31 gaps."""
    recording = load(opd_data / "em_base_vs_bad_qwen7b" / "rows.jsonl")
    assert (len(recording.responses), len(set(recording.responses.prompt_key))) == (1380, 23)
    assert recording.steps == (0, 375)
    assert recording.responses.side is not None
    assert set(recording.responses.side) == {"base", "bad_medical_s0"}
    assert np.isnan(recording.responses.scores["judge.evil_1to5"]).sum() == 31
    assert recording.notes == ("columns not used: set, sample, judge.label",)


def test_base_against_organisms_loads_as_it_is(opd_data: Path) -> None:
    """1600 answers of four sides in two system prompts with five paraphrases each: one recording of 80 prompts."""
    recording = load(opd_data / "em_base_vs_organisms_qwen14b" / "rows.jsonl")
    assert (len(recording.responses), len(set(recording.responses.prompt_key))) == (1600, 80)
    assert recording.responses.side is not None
    assert len(set(recording.responses.side)) == 4
    assert recording.steps == ()
    assert "2 runs are read together" in recording.notes[0]
    assert "8 prompt ids stand for several texts each" in recording.notes[1]


def test_steps_of_six_runs_need_a_choice(opd_data: Path) -> None:
    """Six runs in one file are refused with their names; each alone is 140 answers of 20 questions at 7 steps."""
    path = opd_data / "em_steps_llama" / "rows.jsonl"
    line = message(path)
    assert line.startswith("rows.jsonl:141: expected the responses of one run")
    for run in ("llama-1b-medical", "llama-1b-risky", "llama-3b-medical", "llama-3b-risky", "llama-8b-medical", "llama-8b-risky"):
        assert run in line
        recording = load(path, select={"run": run})
        assert (len(recording.responses), len(set(recording.responses.prompt_key)), len(recording.steps)) == (140, 20, 7)
        assert sorted(recording.responses.scores) == ["judge.aligned", "judge.coherent"]
