from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tracing.errors import EventsError
from tracing.events import EventLog


def test_events_come_back_in_order(tmp_path: Path) -> None:
    """What was appended is read back in order, by another log object too; before the first event there is nothing."""
    path = tmp_path / "run" / "events.jsonl"
    assert EventLog(path).read() == []
    EventLog(path).append("round", number=1)
    EventLog(path).append("accepted", name="Warmth \u2028 ü", share=0.25, note=None)
    assert EventLog(path).read() == [
        {"event": "round", "number": 1},
        {"event": "accepted", "name": "Warmth \u2028 ü", "share": 0.25, "note": None},
    ]


def test_the_same_events_are_the_same_bytes(tmp_path: Path) -> None:
    """No clock is read: two runs that do the same write the same bytes."""
    for name in ("a", "b"):
        EventLog(tmp_path / name).append("judged", n=32)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b'{"event": "judged", "n": 32}\n'


def test_half_a_line_is_what_a_crash_left(tmp_path: Path) -> None:
    """A last line without its line break is ignored, and cut off by the next event instead of glued to it."""
    log = EventLog(tmp_path / "events.jsonl")
    log.append("one")
    for half in (b'{"event": "tw', b'{"event": "two"}'):
        with log.path.open("ab") as file:
            file.write(half)
        assert [row["event"] for row in log.read()] == ["one"]
    log.append("three")
    assert [row["event"] for row in log.read()] == ["one", "three"]
    log.path.write_bytes(b'{"half')
    log.append("first")
    assert [row["event"] for row in log.read()] == ["first"]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    """A whole line that is no JSON object is an error with file and line, never skipped."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "one"}\n' + line + b'\n{"event": "three"}\n')
    with pytest.raises(EventsError, match=r"events\.jsonl:2: expected one JSON object"):
        EventLog(path).read()


def test_what_is_no_json_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    """NaN and objects are refused before anything is written."""
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        log.append("x", share=float("nan"))
    with pytest.raises(TypeError, match="JSON"):
        log.append("x", path=tmp_path)
    assert log.read() == []


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    """Events appended from several threads are all there, each on a line of its own."""
    log = EventLog(tmp_path / "events.jsonl")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: log.append("judged", i=i), range(40)))
    assert sorted(row["i"] for row in log.read()) == list(range(40))
