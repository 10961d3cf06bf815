from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracing.errors import ResponsesError
from tracing.responses import Responses, read_parquet, step_name, write_parquet

unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def three() -> Responses:
    """Three responses that use every column."""
    return Responses.of(
        ["Why?", "Why?", "How?"],
        ["Because.", "", "Ünïcode \u2028 \x00 and\r\nlines"],
        system=["", "Be brief.", ""],
        step=[0, 0, 4],
        side=["base", "base", "tuned"],
        scores={"judge.evil": [1.0, np.nan, 0.1 + 0.2]},
    )


def test_prompt_is_system_text_and_question_together() -> None:
    """The same question under another system text, or under another given id, is another prompt; the completion plays no part."""
    keys = Responses.of(["q", "q", "q"], ["a", "b", "c"], system=["", "", "s"]).prompt_key
    assert keys[0] == keys[1] != keys[2]
    keys = Responses.of(["q", "q", "q"], ["a", "b", "c"], prompt_id=["1", "1", "2"]).prompt_key
    assert keys[0] == keys[1] != keys[2]


def test_prompt_id_is_the_hash_when_none_is_given() -> None:
    """Without given ids a prompt is named by its own hash; with them it keeps its name."""
    assert Responses.of(["q"], ["a"]).prompt_id == Responses.of(["q"], ["b"]).prompt_key
    assert Responses.of(["q"], ["a"], prompt_id=["wish"]).prompt_id == ("wish",)


def test_borders_between_texts_count() -> None:
    """Moving characters from one text to its neighbour makes another response."""
    keys = Responses.of(["ab", "a"], ["c", "bc"]).text_key
    assert keys[0] != keys[1]


def test_equal_texts_have_one_key() -> None:
    """Two samples of one text share their text key, wherever they were sampled, so they are judged once."""
    keys = Responses.of(["q", "q", "q"], ["a", "a", "b"], step=[0, 10, 10], prompt_id=["x", "x", "x"]).text_key
    assert keys[0] == keys[1] != keys[2]
    assert keys == Responses.of(["q"] * 3, ["a", "a", "b"]).text_key


def test_response_ids_name_step_and_place() -> None:
    """Responses that were given no id are named by step and place, or by place alone."""
    assert Responses.of(["q", "q"], ["a", "b"], step=120).response_id == ("step-000120/0", "step-000120/1")
    assert Responses.of(["q", "q"], ["a", "b"]).response_id == ("0", "1")
    assert step_name(1234567) == "step-1234567"


def test_take_keeps_every_column_aligned() -> None:
    """Taking rows takes the same rows of every column, in the order asked for; masks and nothing at all work too."""
    taken = three().take([2, 0])
    assert (taken.completion[1], taken.prompt, taken.side) == ("Because.", ("How?", "Why?"), ("tuned", "base"))
    assert taken.step is not None
    assert taken.step.tolist() == [4, 0]
    assert taken.scores["judge.evil"].tolist() == [0.1 + 0.2, 1.0]
    assert three().take(np.array([True, False, True])).response_id == (three().response_id[0], three().response_id[2])
    assert len(three().take([])) == 0


def test_columns_of_different_lengths_are_refused() -> None:
    """A column that is too short is never padded."""
    with pytest.raises(ResponsesError, match="one length"):
        Responses.of(["q", "q"], ["a", "b"], side=["base"])
    with pytest.raises(ResponsesError, match="one length"):
        Responses.of(["q"], ["a"], scores={"judge.evil": [1.0, 2.0]})


def test_response_ids_are_unique() -> None:
    """Two responses of one name are refused, because judgements and evidence point to names."""
    with pytest.raises(ResponsesError, match="'x' twice"):
        Responses.of(["q", "q"], ["a", "b"], response_id=["x", "x"])


def test_concatenation_fills_missing_scores_with_nan_and_refuses_missing_steps() -> None:
    """A score that one part lacks is missing there, not zero; steps that one part lacks are an error."""
    one, other = Responses.of(["q"], ["a"], step=0, scores={"x": [1.0]}), Responses.of(["q"], ["b"], step=2)
    both = Responses.concatenate([one, other])
    assert np.array_equal(both.scores["x"], [1.0, np.nan], equal_nan=True)
    assert both.step is not None
    assert both.step.tolist() == [0, 2]
    with pytest.raises(ResponsesError, match="steps"):
        Responses.concatenate([one, Responses.of(["q"], ["b"], response_id=["y"])])


def assert_equal(one: Responses, other: Responses) -> None:
    """Compare every column, floats bit for bit."""
    for name in ("response_id", "prompt_key", "prompt_id", "system", "prompt", "completion", "side"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.step is None) == (other.step is None)
    if one.step is not None and other.step is not None:
        assert one.step.dtype == other.step.dtype == np.int64
        assert one.step.tolist() == other.step.tolist()
    assert list(one.scores) == list(other.scores)
    for name, column in one.scores.items():
        assert column.tobytes() == other.scores[name].tobytes()


def test_parquet_returns_every_column_bit_for_bit(tmp_path: Path) -> None:
    """What was written comes back: line separators, NUL characters, empty completions, missing scores, every bit of a float."""
    write_parquet(tmp_path / "responses" / "step-000004.parquet", three(), settings="abc")
    assert_equal(three(), read_parquet(tmp_path / "responses" / "step-000004.parquet", settings="abc"))


@pytest.mark.slow
@given(st.lists(st.tuples(unicode_text, unicode_text, unicode_text), max_size=6))
def test_parquet_returns_any_text(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    """Any text that is valid Unicode survives the file, also no rows at all."""
    path = tmp_path_factory.mktemp("any") / "any.parquet"
    written = Responses.of([r[0] for r in rows], [r[1] for r in rows], system=[r[2] for r in rows])
    write_parquet(path, written)
    assert_equal(written, read_parquet(path))


def test_parquet_of_other_settings_is_refused(tmp_path: Path) -> None:
    """A file that was copied in from a run with other settings is named and refused."""
    path = tmp_path / "step-000000.parquet"
    write_parquet(path, three(), settings="one")
    with pytest.raises(ResponsesError, match=r"step-000000\.parquet: expected responses recorded under the settings other"):
        read_parquet(path, settings="other")


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_damaged_parquet_is_one_line(tmp_path: Path, keep: int) -> None:
    """A file cut anywhere is an error that names it in one line."""
    path = tmp_path / "step-000000.parquet"
    write_parquet(path, three())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ResponsesError, match=r"step-000000\.parquet: expected a Parquet file") as error:
        read_parquet(path)
    assert "\n" not in str(error.value)


def test_foreign_parquet_is_one_line(tmp_path: Path) -> None:
    """A Parquet file with other columns says which columns were expected."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["q"]}), tmp_path / "x.parquet")
    with pytest.raises(ResponsesError, match=r"expected the columns response_id, .*found prompt"):
        read_parquet(tmp_path / "x.parquet")


def test_writing_replaces_the_file_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Writing again replaces the old file; no temporary file stays."""
    path = tmp_path / "x.parquet"
    write_parquet(path, three())
    write_parquet(path, three().take([0]))
    assert len(read_parquet(path)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x.parquet"]


def test_failed_writing_changes_nothing(tmp_path: Path) -> None:
    """When writing fails (here: text that is no Unicode) the old file is untouched and no temporary file stays."""
    path = tmp_path / "x.parquet"
    write_parquet(path, three())
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_parquet(path, Responses.of(["q"], ["half \ud83d"]))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.parquet"]
