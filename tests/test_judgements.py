from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tracing.errors import JudgementsError
from tracing.judgements import JudgementRow, JudgementStore

ROOT = Path(__file__).resolve().parent.parent


def row(text_key: str, level: int | None = 2, *, judge: str = "j", parameter_id: str = "p", repeat: int = 0) -> JudgementRow:
    """A judgement of `text_key`; one without a level could not be told."""
    return JudgementRow(
        judge=judge,
        parameter_id=parameter_id,
        text_key=text_key,
        repeat=repeat,
        status="cannot_tell" if level is None else "read",
        level=level,
        probabilities=[0.1, 0.2, 0.7] if level == 2 else None,
        quote="quoted — ü" if level == 2 else None,
    )


def test_judgements_come_back_as_they_were(tmp_path: Path) -> None:
    """Every field comes back, missing levels as missing, after closing and opening again."""
    rows = [row("b"), row("a", None), row("c", 0)]
    with JudgementStore(tmp_path / "run" / "judgements.sqlite") as store:
        assert store.put_many(rows) == 3
    with JudgementStore(tmp_path / "run" / "judgements.sqlite") as store:
        assert store.get("j", "p") == {"a": rows[1], "b": rows[0], "c": rows[2]}
        assert list(store.get("j", "p")) == ["a", "b", "c"]


def test_judge_parameter_and_repeat_are_kept_apart(tmp_path: Path) -> None:
    """A judgement belongs to one judge, one parameter and one repeat; none of them sees those of another."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        store.put_many([row("a", 0), row("a", 1, judge="k"), row("a", 2, parameter_id="q"), row("a", 3, repeat=1)])
        found = [store.get("j", "p"), store.get("k", "p"), store.get("j", "q"), store.get("j", "p", repeat=1)]
        assert [one["a"]["level"] for one in found] == [0, 1, 2, 3]
        assert store.get("j", "p", repeat=2) == {}


def test_the_first_judgement_stays(tmp_path: Path) -> None:
    """Judging the same text again changes nothing, so a resumed run decides on the same set."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        store.put_many([row("a", 1)])
        assert store.put_many([row("a", 3), row("b", 0), row("b", 1)]) == 1
        assert {key: found["level"] for key, found in store.get("j", "p").items()} == {"a": 1, "b": 0}


@pytest.mark.parametrize(("status", "level"), [("read", None), ("refused", 2)])
def test_missing_is_not_a_level(tmp_path: Path, status: str, level: int | None) -> None:
    """A level without having been read, or none although read, is refused with the whole batch."""
    bad = row("b")
    bad["status"], bad["level"] = status, level
    with JudgementStore(tmp_path / "j.sqlite") as store:
        with pytest.raises(JudgementsError, match="a level exactly when"):
            store.put_many([row("a"), bad])
        assert store.get("j", "p") == {}
        assert store.put_many([row("a")]) == 1


def test_paid_replies_are_kept_once(tmp_path: Path) -> None:
    """A request that was answered is answered from disk for ever after, with what it used; a second reply does not replace the first."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        assert store.cached("key") is None
        assert store.usage("key") is None
        store.store("key", '{"level": 2}', {"input_tokens": 12, "output_tokens": 3})
        store.store("key", '{"level": 4}', {})
    with JudgementStore(tmp_path / "j.sqlite") as store:
        assert store.cached("key") == '{"level": 2}'
        assert store.usage("key") == {"input_tokens": 12, "output_tokens": 3}


def test_threads_share_one_store(tmp_path: Path) -> None:
    """Judgements written from several threads at once are all there."""
    with JudgementStore(tmp_path / "j.sqlite") as store:
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda i: store.put_many([row(f"{i:03d}"), row("same")]), range(40))) == 41
        assert len(store.get("j", "p")) == 41


KILLED = """
import sys
from tracing.judgements import JudgementStore
store = JudgementStore(sys.argv[1])
for i in range(100000):
    store.store(f"{i}", "{}", {})
    print(i, flush=True)
"""


def test_what_was_stored_survives_kill_9(tmp_path: Path) -> None:
    """A reply whose `store` returned is on disk after kill -9: nothing is paid twice."""
    path = tmp_path / "j.sqlite"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    stored = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split(b"\n")[:-1]
    process.wait()
    process.stdout.close()
    stored += [int(line) for line in rest]
    with JudgementStore(path) as store:
        assert all(store.cached(str(i)) == "{}" for i in stored)


def test_files_that_are_no_store_are_one_line(tmp_path: Path) -> None:
    """A text file, a database of something else, and a store of a newer program are each named."""
    (tmp_path / "text").write_text("this is no database, and long enough to be read as a header " * 3)
    with pytest.raises(JudgementsError, match="text: expected a store of judgements"):
        JudgementStore(tmp_path / "text")
    for name, statement in (("other", "CREATE TABLE music (title TEXT)"), ("newer", "PRAGMA user_version = 2")):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute(statement)
        connection.commit()
        connection.close()
    with pytest.raises(JudgementsError, match="other: expected a store of judgements, found an SQLite file of something else"):
        JudgementStore(tmp_path / "other")
    with pytest.raises(JudgementsError, match="newer: expected version 1 or older, found 2; update"):
        JudgementStore(tmp_path / "newer")
