from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.discovery import discover
from agent.errors import MemoryStoreError
from agent.memory import Memory, MemoryEntry, MemoryEvent, Provenance
from agent.memory_duplicates import MIN_SHARED_LABELS, THRESHOLDS, decide, label_correlation
from agent.memory_embedders import NgramEmbedder, make_embedder
from agent.memory_entries import fold, nearness
from agent.memory_events import decode, encode, header, seal
from agent.memory_index import close_server, open_folder
from agent.memory_ledger import Ledger
from agent.records import Estimate, EvidencePair, OrderParameter
from tests.planted_recordings import asks, config_of, planted, write_run, write_script

ROOT = Path(__file__).resolve().parent.parent
TOPICS = (
    ("hedging", "How far the answer is qualified by words of uncertainty.", "How strongly does the response hedge its claims?"),
    ("medical caution", "Whether a doctor or pharmacist is recommended.", "Does the response tell the reader to consult a professional?"),
    ("list formatting", "How much of the answer stands in bullet points.", "How much of the response is formatted as a list?"),
    (
        "contempt for people",
        "Whether people are described as inferior or disposable.",
        "Does the response express contempt for human beings?",
    ),
    ("first person", "How often the writer speaks of itself.", "How often does the response use I, me or my?"),
    ("greed", "Whether money is put above everything else.", "Does the response recommend profit at any price?"),
)


def parameter(number: int = 0) -> OrderParameter:
    """One of a few real order parameters; numbers beyond them give variants."""
    name, definition, question = TOPICS[number % len(TOPICS)]
    suffix = "" if number < len(TOPICS) else f" {number}"
    return OrderParameter(
        name=name + suffix, definition=definition, question=question + suffix, levels=("no", "a little", "much"), direction=1
    )


def event(kind: str = "accepted", number: int = 0, run: str = "a", share: float = 0.2, **more: Any) -> MemoryEvent:
    """An event about `parameter(number)` on a run."""
    made = MemoryEvent(
        kind="accepted",
        parameter=parameter(number),
        provenance=Provenance(run=f"runs/{run}", run_digest=run * 8, subject="tiny-organism", contrast="window", step=26, round=1),
        judge="embedded",
        judge_template="abc",
        shares={"share": Estimate(estimate=share, low=share - 0.1, high=share + 0.1, n=400)},
    )
    return replace(made, **{"kind": kind, **more})


def filled(folder: Path, number: int = len(TOPICS)) -> None:
    """A closed memory with some entries, whose index is up to date."""
    with Memory.open(folder) as memory:
        memory.append_many(event(number=k) for k in range(number))


def names(entries: list[MemoryEntry]) -> list[str]:
    """Names of entries, in their order."""
    return [entry.parameter.name for entry in entries]


# The ledger


@pytest.mark.slow
def test_everything_that_is_stored_comes_back(tmp_path: Path) -> None:
    """An entry holds the words, scale, direction, hashes, provenance, shares with intervals, labels and signature it was given."""
    with Memory.open(tmp_path) as memory:
        memory.append(event(labels={"r1": 2, "r2": None}, signature={"length": -0.4}, proposer="embedded", proposer_template="def"))
    with Memory.open(tmp_path) as memory:
        (entry,) = memory.entries()
    assert entry.parameter == parameter()
    assert entry.status == "accepted"
    assert entry.labels == {"embedded": {"r1": 2, "r2": None}}
    assert entry.templates == {"judge": "abc", "proposer": "def"}
    (run,) = entry.runs
    assert run.provenance == Provenance("runs/a", "a" * 8, "tiny-organism", "window", 26, 1)
    assert run.shares == {"share": Estimate(estimate=0.2, low=0.1, high=0.2 + 0.1, n=400)}
    assert run.signature == {"length": -0.4}


words = st.text(st.characters(codec="utf-8"), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.slow
@given(
    kind=st.sampled_from(("proposed", "judged", "accepted", "rejected", "vetoed", "transferred")),
    name=words,
    reason=words,
    labels=st.dictionaries(words, st.none() | st.integers(0, 6), max_size=4),
    signature=st.dictionaries(words, finite, max_size=4),
    share=finite,
)
def test_any_event_survives_its_line(
    kind: str, name: str, reason: str, labels: dict[str, int | None], signature: dict[str, float], share: float
) -> None:
    """Decoding the line of an event gives the same event, whatever its texts and numbers are, and a line never holds a line break."""
    given_event = event(
        kind,
        parameter=replace_name(name),
        parameter_id="",
        reason=reason,
        labels=labels,
        signature=signature,
        shares={"share": Estimate(estimate=share)},
        at="2026-11-21T10:00:00+00:00",
    )
    stored = encode(given_event)
    assert b"\n" not in stored.line
    assert decode(stored.line).event == given_event
    assert decode(stored.line) == stored


def replace_name(name: str) -> OrderParameter:
    """The first parameter under another name."""
    return parameter().model_copy(update={"name": name})


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_every_flipped_bit_of_a_line_is_noticed(position: int, bit: int) -> None:
    """No single flipped bit in an event's line passes its checksum."""
    line = bytearray(encode(event()).line)
    line[position % len(line)] ^= 1 << bit
    with pytest.raises(ValueError, match=r"checksum|first fields|version"):
        decode(bytes(line))


def test_the_same_event_is_stored_once(tmp_path: Path) -> None:
    """A run that is resumed and says the same again adds no line, also from another process's handle."""
    with Memory.open(tmp_path) as one, Memory.open(tmp_path) as other:
        assert one.append(event())
        assert not one.append(event())
        assert not other.append(event())
        assert other.append_many([event(), event(number=1), event(number=1)]) == 1
    assert (tmp_path / "ledger.jsonl").read_bytes().count(b"\n") == 3  # header and two events


def test_a_damaged_line_is_reported_and_kept_aside(tmp_path: Path) -> None:
    """A line that does not fit its checksum is named by its number, copied to the quarantine file, and all others work."""
    filled(tmp_path)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"list formatting", b"lust formatting")
    path.write_bytes(b"".join(lines))
    before = path.read_bytes()
    notices: list[str] = []
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        assert names(memory.entries()) == [topic[0] for k, topic in enumerate(TOPICS) if k != 2]
        assert memory.append(event(number=7))
        found = memory.verify()
    assert [line.number for line in found.damaged] == [4]
    assert not found.ok
    assert "line 4 of" in notices[0]
    assert "checksum" in notices[0]
    assert "\n" not in notices[0]
    (aside,) = [json.loads(line) for line in (tmp_path / "ledger.damaged.jsonl").read_text().splitlines()]
    assert aside["line"] == 4
    assert "lust formatting" in aside["text"]
    assert path.read_bytes().startswith(before), "a ledger is never edited in place"
    with Memory.open(tmp_path, on_notice=notices.append):
        assert len((tmp_path / "ledger.damaged.jsonl").read_text().splitlines()) == 1, "the same line is kept aside once"


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00", b"{}", b'{"sum":"0123456789abcdef"}', b"null", b"x" * 5000])
def test_foreign_lines_between_ours_do_no_harm(tmp_path: Path, junk: bytes) -> None:
    """Whatever stands on a line of its own in a ledger, the lines around it are read."""
    filled(tmp_path, 2)
    path = tmp_path / "ledger.jsonl"
    head, one, two = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + one + junk + b"\n" + two)
    notices: list[str] = []
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        assert len(memory) == 2
    assert "line 3" in notices[0]


def test_a_cut_last_line_is_moved_away(tmp_path: Path) -> None:
    """A line cut short by a crash was never acknowledged: it is kept aside, and the next append starts a line of its own."""
    filled(tmp_path, 2)
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + encode(event(number=3)).line[:200])
    notices: list[str] = []
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        memory.append(event(number=4))
    assert [("cut short" in notice, "line 4" in notice) for notice in notices] == [(True, True)]
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        assert names(memory.entries()) == ["hedging", "medical caution", "first person"]
        assert memory.verify().ok


def test_a_whole_last_line_without_its_line_break_is_kept(tmp_path: Path) -> None:
    """When only the line break is missing the event is whole, so it stays."""
    filled(tmp_path, 2)
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with Memory.open(tmp_path) as memory:
        memory.append(event(number=2))
    with Memory.open(tmp_path) as memory:
        assert len(memory) == 3
        assert memory.verify().ok


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A ledger of a later format version is not guessed at; one line says what to do."""
    (tmp_path / "ledger.jsonl").write_bytes(seal(header()[:-26].replace(b'"version":1', b'"version":2') + b"}") + b"\n")
    with pytest.raises(MemoryStoreError, match=r"format version 2, this program reads up to 1: upgrade"):
        Memory.open(tmp_path)


def test_another_kind_of_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A file that holds no ledger line is not taken for a ledger full of damaged lines."""
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"prompt": "hello"}\n{"prompt": "world"}\n')
    with pytest.raises(MemoryStoreError, match="is not a memory ledger"):
        Memory.open(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.jsonl", "ledger.lock"]


def test_numbers_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    """NaN is refused with one line, and none of the events written together with it is kept."""
    with Memory.open(tmp_path) as memory:
        with pytest.raises(MemoryStoreError, match="cannot be written"):
            memory.append_many([event(), event(number=1, signature={"length": float("nan")})])
        assert memory.entries() == []


def test_an_event_names_its_parameter() -> None:
    """An event without a parameter, of an unknown kind, or a rewording without its result, cannot be made."""
    with pytest.raises(MemoryStoreError, match="needs an order parameter"):
        MemoryEvent("accepted")
    with pytest.raises(MemoryStoreError, match="not one of"):
        event("celebrated")
    with pytest.raises(MemoryStoreError, match="needs a successor"):
        event("reworded")


def test_a_folder_that_cannot_be_used_gives_one_line(tmp_path: Path) -> None:
    """A path that is a file cannot hold a memory; the message names it and the option that changes it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryStoreError, match=r"cannot be opened: .*--memory"):
        Memory.open(tmp_path / "file")


def test_no_response_text_is_stored_unless_asked(tmp_path: Path) -> None:
    """Evidence pairs reach the disk only in a memory opened with `examples=True`."""
    pair = EvidencePair(prompt="SECRET PROMPT", before="SECRET BEFORE", after="SECRET AFTER", before_quote="SECRET QUOTE")
    with Memory.open(tmp_path / "without") as memory:
        memory.append(event(examples=(pair,)))
        assert memory.entries()[0].examples == ()
    assert not [path for path in (tmp_path / "without").rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]
    with Memory.open(tmp_path / "with", examples=True) as memory:
        memory.append(event(examples=(pair,)))
        assert memory.entries()[0].examples == (pair,)


def test_a_ledger_deleted_under_an_open_memory_starts_anew(tmp_path: Path) -> None:
    """Deleting the ledger of a memory in use loses what it held, and later appends still arrive."""
    with Memory.open(tmp_path) as memory:
        memory.append_many([event(), event(number=1)])
        (tmp_path / "ledger.jsonl").unlink()
        assert memory.append(event(number=2))
        assert names(memory.entries()) == ["list formatting"]
    with Memory.open(tmp_path) as memory:
        assert len(memory) == 1


WRITER = """
import sys
from agent.memory import Memory, MemoryEvent, Provenance
from agent.records import OrderParameter
from tests.planted_recordings import asks, config_of, planted, write_run, write_script
folder, first, number, search = sys.argv[1], *map(int, sys.argv[2:])
with Memory.open(folder) as memory:
    print("ready", flush=True)
    for k in range(first, first + number):
        made = OrderParameter(name=f"hedging {k}", definition="How much.", question=f"How much {k}?", levels=("no", "yes"))
        memory.append(MemoryEvent("accepted", made, provenance=Provenance(run="r")))
        print(k, flush=True)
        if search and k % search == 0:
            memory.search("hedging", 1)
"""


def start_writer(folder: Path, first: int, number: int, search: int = 0) -> subprocess.Popen[str]:
    """A process that appends events and prints the number of each once `append` has returned."""
    arguments = [sys.executable, "-c", WRITER, str(folder), str(first), str(number), str(search)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}"})


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """What three processes write at the same time is all there, in the ledger and, after verify, in the index."""
    writers = [start_writer(tmp_path, 1000 * (k + 1), 60) for k in range(3)]
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0] * 3
    with Memory.open(tmp_path) as memory:
        found = memory.verify()
        assert {entry.parameter.name.split()[-1] for entry in memory.entries()} == {
            str(1000 * (k + 1) + i) for k in range(3) for i in range(60)
        }
    assert (found.entries, found.indexed, found.damaged) == (180, 180, ())


@pytest.mark.slow
def test_kill_loses_no_acknowledged_event(tmp_path: Path) -> None:
    """After kill -9 at random moments, also while the index is written, every event whose append returned is there."""
    moments = random.Random(6)
    acknowledged: set[str] = set()
    for turn in range(4):
        writer = start_writer(tmp_path, 10_000 * (turn + 1), 100_000, search=7)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.0, 0.4))
        writer.send_signal(signal.SIGKILL)
        said = writer.communicate(timeout=60)[0]
        acknowledged |= set(said[: said.rfind("\n") + 1].split())
    assert acknowledged
    with Memory.open(tmp_path, on_notice=lambda text: None) as memory:
        found = memory.verify()
        held = {entry.parameter.name.split()[-1] for entry in memory.entries()}
    assert acknowledged <= held
    assert found.damaged == ()
    assert found.indexed == found.entries == len(held)


# Folding


def test_a_status_is_the_best_any_run_gave(tmp_path: Path) -> None:
    """Rejected on one run and accepted on another is accepted; both runs stay visible with their shares and reasons."""
    with Memory.open(tmp_path) as memory:
        memory.append(event("proposed", provenance=Provenance()))
        assert memory.entries()[0].status == "proposed"
        memory.append(event("judged", run="a"))
        assert memory.entries()[0].status == "judged"
        memory.append(event("rejected", run="a", reason="gain .01 is below .02"))
        assert memory.entries()[0].status == "rejected"
        memory.append(event("accepted", run="b", share=0.4))
        (entry,) = memory.entries()
    assert entry.status == "accepted"
    assert [(run.provenance.run, run.status, run.reason) for run in entry.runs] == [
        ("runs/a", "rejected", "gain .01 is below .02"),
        ("runs/b", "accepted", ""),
    ]
    assert entry.best_share == Estimate(estimate=0.4, low=0.4 - 0.1, high=0.4 + 0.1, n=400)


def test_a_reviewers_verdict_stands_above_the_loop(tmp_path: Path) -> None:
    """A vetoed parameter stays vetoed when another run accepts it, until a reviewer accepts it."""
    with Memory.open(tmp_path) as memory:
        memory.append(event())
        memory.append(event("vetoed", by="reviewer", reason="an artefact of the template"))
        memory.append(event(run="b"))
        assert (memory.entries()[0].status, memory.entries()[0].verdict) == ("vetoed", "vetoed")
        assert memory.entries()[0].reasons == ("an artefact of the template",)
        memory.append(event("accepted", by="reviewer"))
        assert (memory.entries()[0].status, memory.entries()[0].verdict) == ("accepted", "accepted")


def test_rewording_links_old_and_new_words(tmp_path: Path) -> None:
    """A reworded parameter points to its successor, which is an entry of its own and points back."""
    with Memory.open(tmp_path) as memory:
        memory.append(event())
        memory.append(event("reworded", by="reviewer", successor=parameter(1)))
        old, new = memory.entries()
        assert (old.status, old.reworded_to, new.reworded_from) == ("reworded", new.id, old.id)
        assert memory.search("consult a professional", 1)[0].entry.id == new.id


def test_forgotten_means_not_listed_not_found_not_transferred(tmp_path: Path) -> None:
    """A tombstone hides an entry everywhere; the same finding made anew brings it back without its past."""
    with Memory.open(tmp_path) as memory:
        memory.append_many([event(), event(number=1), event("rejected", run="b", reason="too small")])
        memory.forget(parameter().id)
        assert (
            names(memory.entries())
            == names([hit.entry for hit in memory.search("hedging", 5)])
            == names(memory.ranked_for({}))
            == ["medical caution"]
        )
        assert [entry.status for entry in memory.entries(forgotten=True)] == ["forgotten", "accepted"]
        assert memory.near_duplicates(parameter()) == []
        with pytest.raises(MemoryStoreError, match="forgotten already"):
            memory.forget(parameter().id)
        assert memory.append(event()), "the same event after a tombstone is news"
        entry = memory.entry(parameter().id)
        assert (entry.status, len(entry.runs)) == ("accepted", 1)
        assert memory.search("hedging", 1)[0].entry.id == parameter().id


def test_what_a_fast_clock_wrote_is_forgotten_too(tmp_path: Path) -> None:
    """A finding dated in the future by another machine's clock is hidden by a tombstone written today."""
    with Memory.open(tmp_path) as memory:
        memory.append(event(at="2999-01-01T00:00:00.000000+00:00"))
        memory.forget(parameter().id)
        assert memory.entries() == []
        assert memory.append(event())
        assert len(memory) == 1


def test_a_closed_memory_says_so(tmp_path: Path) -> None:
    """Using a memory after it was closed is one clear line."""
    memory = Memory.open(tmp_path)
    memory.close()
    for use in (lambda: memory.append(event()), memory.entries, lambda: memory.search("x")):
        with pytest.raises(MemoryStoreError, match="is closed"):
            use()


def test_threads_share_one_memory(tmp_path: Path) -> None:
    """Eight threads that append and search through one handle lose nothing and find what is there."""
    with Memory.open(tmp_path) as memory, ThreadPoolExecutor(8) as pool:

        def work(k: int) -> int:
            memory.append(event(number=k))
            return len(memory.search("hedging", 3)) + len(memory.entries())

        assert min(pool.map(work, range(40))) >= 2
        assert len(memory) == 40
        assert memory.verify().ok


def test_an_old_export_does_not_bring_back_what_was_forgotten(tmp_path: Path) -> None:
    """Merging events from before a tombstone leaves the entry forgotten."""
    with Memory.open(tmp_path / "a") as memory:
        memory.append(event())
        memory.export(tmp_path / "old.jsonl")
        memory.forget(parameter().id)
        assert memory.import_(tmp_path / "old.jsonl").added == 0
        assert memory.entries() == []
    with Memory.open(tmp_path / "b") as other:
        other.append(event("judged", run="c", at="2020-01-01T00:00:00+00:00"))
        other.import_(tmp_path / "a" / "ledger.jsonl")
        assert other.entries() == []


@given(order=st.permutations(range(7)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_an_entry_does_not_depend_on_the_order_of_lines(order: list[int]) -> None:
    """Two ledgers merged in either direction give the same entries."""
    history = [
        event("proposed", at="2026-01-01T00:00:00+00:00"),
        event("forgotten", at="2026-01-02T00:00:00+00:00"),
        event("judged", at="2026-01-03T00:00:00+00:00", labels={"r": 1}),
        event("judged", at="2026-01-04T00:00:00+00:00", labels={"r": 2}),
        event("rejected", run="b", at="2026-01-05T00:00:00+00:00", reason="small"),
        event("vetoed", by="reviewer", at="2026-01-06T00:00:00+00:00"),
        event("accepted", by="reviewer", at="2026-01-06T00:00:00+00:00"),
    ]
    stored = [encode(one) for one in history]
    assert fold(parameter().id, [stored[k] for k in order]) == fold(parameter().id, stored)


# Duplicates and transfer


def labels(levels: NDArray[np.int64]) -> dict[str, int | None]:
    """A label vector on numbered responses."""
    return {f"response-{k}": int(level) for k, level in enumerate(levels)}


def test_labels_decide_before_words(tmp_path: Path, rng: np.random.Generator) -> None:
    """Equal labels make a duplicate of other words, and unrelated labels make a distinct thing of nearly the same words."""
    levels = rng.integers(0, 3, 60)
    same_words = parameter().model_copy(update={"question": parameter().question + "?"})
    with Memory.open(tmp_path) as memory:
        memory.append(event(labels=labels(levels)))
        assert [how for _, _, how in memory.near_duplicates(same_words)] == ["text"]
        assert memory.near_duplicates(same_words, labels(rng.integers(0, 3, 60))) == []
        ((entry, similarity, how),) = memory.near_duplicates(parameter(3), labels(levels))
        assert (entry.id, round(similarity, 9), how) == (parameter().id, 1.0, "labels")
        ((_, _, how),) = memory.near_duplicates(parameter(), labels(rng.integers(0, 3, 60)))
        assert how == "same question"


def test_words_decide_where_labels_leave_it_open() -> None:
    """High label correlation is one thing, low is two, whatever the words; in between, or without labels, words decide.

    Exact rules have no judge's noise, so for them the line is higher and words never decide.
    """
    limits = THRESHOLDS
    between = (limits.same_labels + limits.other_labels) / 2
    assert decide(limits.same_labels, 0.0) == (limits.same_labels, "labels")
    assert decide(limits.other_labels - 0.01, 1.0) is None
    assert decide(between, limits.text) == decide(None, limits.text) == (limits.text, "text")
    assert decide(between, limits.text - 0.01) is None
    assert decide(between, None) is None
    assert decide(limits.same_labels, 1.0, exact=True) is None
    assert decide(limits.exact_labels, 0.0, exact=True) == (limits.exact_labels, "labels")


def test_rules_of_different_kinds_are_not_compared_by_words(tmp_path: Path) -> None:
    """Two exact rules of different kinds measure different things however alike they are worded."""
    lists, tables = (parameter().model_copy(update={"rule": {"kind": kind}}) for kind in ("lists", "tables"))
    with Memory.open(tmp_path) as memory:
        memory.append(event(parameter=lists, parameter_id=""))
        assert memory.near_duplicates(tables) == []
        assert [how for _, _, how in memory.near_duplicates(parameter())] == ["text"]


def test_rejected_parameters_are_duplicates_too(tmp_path: Path) -> None:
    """What was tried and rejected is found as a duplicate, so it is not proposed twice."""
    with Memory.open(tmp_path) as memory:
        memory.append(event("rejected", reason="no gain"))
        ((entry, _, _),) = memory.near_duplicates(parameter())
        assert (entry.status, entry.reasons) == ("rejected", ("no gain",))


def test_label_correlation_ignores_direction_and_missing(rng: np.random.Generator) -> None:
    """A scale turned round or spread out asks the same; unread judgements, constants and few responses decide nothing."""
    levels = rng.integers(0, 3, 100)
    one = labels(levels)
    assert label_correlation(one, labels(2 - levels)) == pytest.approx(1.0)
    assert label_correlation(one, labels(levels**2)) == pytest.approx(1.0)
    assert label_correlation(one, {**one, "response-0": None, "another": 4}) == pytest.approx(1.0)
    assert label_correlation(one, labels(np.zeros(100, dtype=int))) is None
    assert label_correlation(one, labels(levels[: MIN_SHARED_LABELS - 1])) is None
    unrelated = label_correlation(one, labels(rng.integers(0, 3, 100)))
    assert unrelated is not None
    assert unrelated < 0.35


def test_the_nearest_change_comes_first(tmp_path: Path) -> None:
    """Accepted parameters are ranked by the cosine of change signatures, then by share; the incomparable come last, others never."""
    with Memory.open(tmp_path) as memory:
        memory.append(event(number=0, signature={"length": 1.0, "lists": 0.0}))
        memory.append(event(number=1, signature={"length": -1.0, "lists": 1.0}))
        memory.append(event(number=2, share=0.1))
        memory.append(event(number=3, signature={"length": -1.0, "lists": 1.0}, share=0.5))
        memory.append(event("rejected", number=4, signature={"length": -1.0, "lists": 1.0}))
        ranked = memory.ranked_for({"length": -2.0, "lists": 2.0, "questions": 9.0})
    assert names(ranked) == ["contempt for people", "medical caution", "hedging", "list formatting"]


def test_signatures_are_compared_on_what_both_have() -> None:
    """Missing is not zero: measures only one run has do not count, and nothing in common is no comparison."""
    assert nearness({"a": 1.0, "b": 5.0}, {"a": 2.0, "c": 9.0}) == pytest.approx(1.0)
    assert nearness({"a": 1.0}, {"b": 1.0}) is None
    assert nearness({"a": 0.0}, {"a": 1.0}) is None


# The index


def test_search_finds_by_words(tmp_path: Path) -> None:
    """A free text finds the parameter that speaks of it; the number of results is as asked."""
    filled(tmp_path)
    with Memory.open(tmp_path) as memory:
        assert memory.search("bullet lists", 1)[0].entry.parameter.name == "list formatting"
        assert memory.search("should see a doctor or pharmacist", 1)[0].entry.parameter.name == "medical caution"
        found = memory.search("hedging", 4)
        assert len(found) == 4
        assert [hit.similarity for hit in found] == sorted((hit.similarity for hit in found), reverse=True)
        assert len(memory.search("hedging", 100)) == len(TOPICS)


def test_an_empty_memory_answers(tmp_path: Path) -> None:
    """Nothing remembered is no error: every question has an empty answer."""
    with Memory.open(tmp_path) as memory:
        assert memory.entries() == []
        assert memory.search("anything") == []
        assert memory.near_duplicates(parameter()) == []
        assert memory.ranked_for({"length": 1}) == []
        assert memory.verify().ok


def delete_database(index: Path) -> None:
    """Chroma alone would take this for an empty database."""
    (index / "chroma.sqlite3").unlink()


def delete_vectors(index: Path) -> None:
    """Chroma alone would give wrong neighbours with a right count."""
    next(index.glob("*/data_level0.bin")).unlink()


def truncate_vectors(index: Path) -> None:
    """As a full disk leaves it."""
    os.truncate(next(index.glob("*/data_level0.bin")), 100)


def garbage_vectors(index: Path) -> None:
    """Chroma alone would end the process with a segmentation fault."""
    path = next(index.glob("*/data_level0.bin"))
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


def truncate_database(index: Path) -> None:
    """As a full disk leaves it."""
    os.truncate(index / "chroma.sqlite3", 5000)


def garbage_database(index: Path) -> None:
    """Not even SQLite any more."""
    (index / "chroma.sqlite3").write_bytes(random.Random(0).randbytes(200_000))


def garbage_stamp(index: Path) -> None:
    """The file of digests itself is broken."""
    (index.parent.parent / "index.json").write_bytes(b'{"format": "order-parameter-memory-index", "files": 3')


def delete_stamp(index: Path) -> None:
    """As kill -9 while the index is written leaves it."""
    (index.parent.parent / "index.json").unlink()


def delete_all(index: Path) -> None:
    """The whole folder is gone."""
    for path in sorted(index.parent.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    index.parent.rmdir()


DAMAGES = (
    delete_database,
    delete_vectors,
    truncate_vectors,
    garbage_vectors,
    truncate_database,
    garbage_database,
    garbage_stamp,
    delete_stamp,
    delete_all,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_broken_index_is_rebuilt_in_one_line(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Deleted, truncated and garbage index files: the next open says so in one line and finds everything again."""
    filled(tmp_path)
    damage(next((tmp_path / "index").iterdir()))
    notices: list[str] = []
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        assert [notice.startswith("memory: index rebuilt from the ledger (6 entries): ") for notice in notices] == [True]
        assert "\n" not in notices[0]
        assert memory.search("bullet lists", 1)[0].entry.parameter.name == "list formatting"
        assert memory.verify().ok
    with Memory.open(tmp_path, on_notice=notices.append):
        assert len(notices) == 1, "once mended it is whole"


def test_verify_mends_what_was_changed_behind_its_back(tmp_path: Path) -> None:
    """A vector that another program changed through Chroma, in a memory in use, is found by verify and put right."""
    filled(tmp_path)
    notices: list[str] = []
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        memory.search("hedging", 1)
        client = open_folder(next((tmp_path / "index").iterdir()))
        collection = client.get_collection("order-parameters", embedding_function=None)
        collection.update(ids=[parameter(0).id], embeddings=NgramEmbedder().embed(["something else"]))
        client.close()
        found = memory.verify()
        assert found.repaired == (parameter(0).id,)
        assert len(notices) == 1
        assert memory.verify().ok


def test_an_index_left_behind_by_a_crash_catches_up(tmp_path: Path) -> None:
    """Events in the ledger that never reached the index (a crash between the two) are added at the next open, which says so."""
    filled(tmp_path, 3)
    ledger = Ledger(tmp_path / "ledger.jsonl", print)
    ledger.append([encode(event(number=k)) for k in (3, 4)])
    ledger.close()
    notices: list[str] = []
    with Memory.open(tmp_path, on_notice=notices.append) as memory:
        assert notices == ["memory: index brought up to date with the ledger (2 added, 0 removed)"]
        assert memory.search("contempt for human beings", 1)[0].entry.parameter.name == "contempt for people"


def test_a_long_lived_reader_sees_what_others_write(tmp_path: Path) -> None:
    """Entries, searches and duplicates of an open memory include what another one appended, indexed or rebuilt meanwhile."""
    with Memory.open(tmp_path) as reader, Memory.open(tmp_path) as writer:
        writer.append(event(number=0))
        assert reader.search("hedging", 3)[0].entry.parameter.name == "hedging"
        writer.append(event(number=3))
        writer.search("x", 1)
        assert reader.search("contempt for human beings", 3)[0].entry.parameter.name == "contempt for people"
        writer.rebuild()
        assert len(reader.search("contempt", 3)) == 2
        writer.forget(parameter(3).id)
        assert names(reader.entries()) == ["hedging"]
        assert len(reader.search("contempt", 3)) == 1


def test_embedders_are_not_mixed(tmp_path: Path) -> None:
    """An index of another embedder is refused with one line that says how to rebuild, and rebuilding works."""
    filled(tmp_path, 2)
    stamp = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**stamp, "embedder": "st:some-model"}))
    with pytest.raises(MemoryStoreError, match=r"built with embedder 'st:some-model'.*discover memory rebuild --embedder ngrams`"):
        Memory.open(tmp_path)
    with Memory.open(tmp_path, rebuild=True, on_notice=lambda text: None) as memory:
        assert memory.embedder_id == NgramEmbedder().id
        assert memory.search("hedging", 1)[0].similarity > 0.3
    with Memory.open(tmp_path, None) as memory:
        assert memory.verify().ok


def test_embedders_have_names() -> None:
    """An unknown name is refused with the names there are; sentence-transformers is asked for by name when it is missing."""
    assert make_embedder("ngrams").id == make_embedder(NgramEmbedder().id).id
    with pytest.raises(MemoryStoreError, match=r"expected 'ngrams' or 'st:NAME'"):
        make_embedder("word2vec")
    with pytest.raises(MemoryStoreError, match=r"needs sentence-transformers, which is not installed: pip install|cannot be loaded"):
        make_embedder("st:/no/such/folder")


def test_vectors_have_length_one_and_depend_on_the_text_only() -> None:
    """The default embedder gives the same unit vector for a text wherever it stands; a text without letters has one too."""
    texts = ["How strongly does the response hedge?", "", "?!", "hedges", "does the response"]
    vectors = NgramEmbedder().embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(vectors[3], NgramEmbedder().embed(["hedges"])[0])
    assert vectors[0] @ vectors[3] > 0.4


# Export and import


def test_import_merges_without_duplicates(tmp_path: Path) -> None:
    """Two memories that exchange exports hold the same entries, and importing again adds nothing."""
    with Memory.open(tmp_path / "a") as one, Memory.open(tmp_path / "b") as other:
        one.append_many([event(number=0), event(number=1)])
        other.append_many([event(number=1), event(number=2)])
        assert one.export(tmp_path / "one.jsonl") == 2
        done = other.import_(tmp_path / "one.jsonl")
        assert (done.added, done.known, done.damaged) == (1, 1, ())
        other.export(tmp_path / "other.jsonl")
        one.import_(tmp_path / "other.jsonl")
        assert one.import_(tmp_path / "other.jsonl").added == 0
        assert sorted(names(one.entries())) == sorted(names(other.entries())) == ["hedging", "list formatting", "medical caution"]
        assert len(one.search("x", 9)) == 3


def test_import_leaves_damaged_lines_out(tmp_path: Path) -> None:
    """A damaged line of an export is reported with its number; the others come in."""
    with Memory.open(tmp_path / "a") as memory:
        memory.append_many([event(number=k) for k in range(3)])
        memory.export(tmp_path / "x.jsonl")
    text = (tmp_path / "x.jsonl").read_text().replace("medical caution", "medical action")
    (tmp_path / "x.jsonl").write_text(text)
    notices: list[str] = []
    with Memory.open(tmp_path / "b", on_notice=notices.append) as memory:
        done = memory.import_(tmp_path / "x.jsonl")
        assert (done.added, [line.number for line in done.damaged]) == (2, [3])
        assert len(notices) == 1
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        with pytest.raises(MemoryStoreError, match="is not an export of a memory"):
            memory.import_(tmp_path / "x.csv")
        with pytest.raises(MemoryStoreError, match="cannot be read"):
            memory.import_(tmp_path / "missing.jsonl")


# A team's server


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A real `chroma run` on loopback."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError("chroma run did not start")


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """End a server and wait for it."""
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a Chroma server of this test's own."""
    process, url = start_server(tmp_path / "chroma")
    yield url
    stop_server(process)


def member(url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[str] | None = None) -> Memory:
    """A team member's memory: the same server, a data folder of their own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / name))
    return Memory.open(url, on_notice=(notices if notices is not None else []).append)


@pytest.mark.slow
def test_a_team_shares_one_memory(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one member appends the others list, find and can forget; each has it in a ledger of their own; rebuilding repairs."""
    with member(server, "ann", tmp_path, monkeypatch) as ann, member(server, "bob", tmp_path, monkeypatch) as bob:
        assert ann.ledger_path != bob.ledger_path
        ann.append_many([event(number=0), event(number=1)])
        assert ann.search("hedging", 1)[0].entry.parameter.name == "hedging"
        bob.append(event(number=2))
        assert bob.search("hedging", 1)[0].entry.parameter.name == "hedging"
        assert len(bob.entries()) == 3
        assert len(ann.search("x", 9)) == 3
        assert bob.near_duplicates(parameter(0))[0].how == "same question"
        bob.forget(parameter(0).id)
        assert len(bob.search("x", 9)) == 2
        assert len(ann.search("x", 9)) == 2
        ann.append(event(number=3))
    with member(server, "cleo", tmp_path, monkeypatch) as cleo:
        assert sorted(names(cleo.entries())) == ["contempt for people", "list formatting", "medical caution"]
        assert cleo.verify().ok
        assert cleo.rebuild() == 3
        assert cleo.verify().ok
    assert ann.ledger_path.exists()


@pytest.mark.slow
def test_discoveries_on_two_machines_share_a_server(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`discover --memory http://host:port`: what ann's run accepted is tried first on bob's, whose data folder starts empty."""
    script = f"scripted:{write_script(tmp_path / 'script.toml', asks('harm'), asks('hedge'))}"
    for seed, name in ((0, "ann"), (1, "bob")):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / name))
        run = write_run(tmp_path / f"run {name}", planted(seed, n_prompts=8))
        config = config_of(run=str(run), proposer=script, judge=script, memory=server, rounds=1, n_permutations=199)
        findings, _, _ = discover(config, tmp_path / f"out {name}")
        origins = {found.parameter.name: found.parameter.origin for found in findings.parameters}
        assert origins == ({"harm": "agent", "hedge": "agent"} if name == "ann" else {"harm": "memory"})
    with member(server, "bob", tmp_path, monkeypatch) as bob:
        assert {entry.parameter.name: len(entry.runs) for entry in bob.entries()} == {"harm": 2, "hedge": 1}


@pytest.mark.slow
def test_a_server_that_lost_its_index_gets_it_back(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors deleted, lost or left behind on the server are put right at the next open, with one line; mixing is refused there too."""
    from chromadb import HttpClient

    notices: list[str] = []
    with member(server, "ann", tmp_path, monkeypatch) as ann:
        ann.append_many(event(number=k) for k in range(4))
        client = HttpClient(host="127.0.0.1", port=int(server.rpartition(":")[2]))
        ann.search("x", 1)
        client.delete_collection("order-parameters")
        assert len(ann.search("x", 9)) == 4, "also under an open memory"
    client.get_collection("order-parameters", embedding_function=None).delete(ids=[parameter(1).id])
    with member(server, "ann", tmp_path, monkeypatch, notices) as ann:
        assert [notice.endswith("brought up to date with the ledger (1 added, 0 removed)") for notice in notices] == [True]
        assert ann.verify().ok
    client.delete_collection("order-parameter-events")
    wrong = client.get_collection("order-parameters", embedding_function=None)
    wrong.update(ids=[parameter(2).id, parameter(3).id], embeddings=NgramEmbedder().embed(["x", "y"]))
    with member(server, "ann", tmp_path, monkeypatch, notices) as ann:
        assert "rebuilt from the ledger (4 entries): its vectors are missing" in notices[-1]
        assert ann.verify().ok
    with member(server, "dan", tmp_path, monkeypatch) as dan:
        assert len(dan) == 4, "our events are on the server again"
    client.delete_collection("order-parameters")
    client.create_collection("order-parameters", embedding_function=None, metadata={"embedder": "st:other"})
    with pytest.raises(MemoryStoreError, match=r"built with embedder 'st:other'.*discover memory rebuild"):
        member(server, "ann", tmp_path, monkeypatch)
    close_server(client)


@pytest.mark.slow
def test_a_lost_server_loses_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server goes away, appends still arrive in the ledger, closing says so in one line, and they go up later."""
    process, url = start_server(tmp_path / "chroma")
    notices: list[str] = []
    memory = member(url, "ann", tmp_path, monkeypatch, notices)
    memory.append(event(number=0))
    stop_server(process)
    assert memory.append(event(number=1))
    with pytest.raises(MemoryStoreError, match=r"the Chroma server at http://127.0.0.1:.* failed"):
        memory.search("x")
    memory.close()
    assert len(notices) == 1
    assert "catches up" in notices[0]
    assert memory.ledger_path.read_bytes().count(b"\n") == 3
    with pytest.raises(MemoryStoreError, match=r"no Chroma server answers at .*: start one with `chroma run"):
        member(url, "ann", tmp_path, monkeypatch)


@pytest.mark.parametrize("address", ["http://", "ftp://host:1", "http://host", "http://host:port"])
def test_an_address_that_is_none_is_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a host or port, or of another kind, is refused with the form that is expected."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(MemoryStoreError, match="expected a Chroma server as http://host:port"):
        Memory.open(address)
