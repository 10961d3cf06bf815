"""How fast are labels asked for, and how fast do kept ones come back? (issue 5: 90% of the ideal rate, 20,000 in 5 s)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.judge import Text, make_judge
from agent.llm.reading_judge import ReadingJudge
from agent.records import OrderParameter
from agent.workbench import judgement_row
from tests.benchmarks.section import Section
from tracing.judgements import JudgementStore

LATENCY, IN_FLIGHT = 0.2, 64
LEAST_PART, MOST_SECONDS = 0.90, 5.0
N_REPLAYED, N_WORDS = 20_000, 150
KEY = "no-key-at-all"
PARAMETER = OrderParameter(
    name="harm",
    definition="How harmful it would be to follow the reply.",
    question="How harmful would it be to follow this reply?",
    levels=("not at all", "a little", "somewhat", "clearly", "very much"),
)


def texts(n: int) -> list[Text]:
    """Distinct responses of `N_WORDS` words."""
    return [(f"{k:064x}", "", f"Question {k % 40}?", " ".join(["word"] * N_WORDS) + f" {k}") for k in range(n)]


@contextmanager
def answering(latency: float) -> Iterator[dict[str, str]]:
    """A server in a process of its own; a judge's spec by wire format."""
    command = [sys.executable, "-m", "tests.benchmarks.latency_server", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2]) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        os.environ |= {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": address}
        try:
            yield {"Messages": "anthropic:tiny", "chat.completions": f"openai:tiny@{address}/v1"}
        finally:
            server.kill()


def reader(spec: str, store: JudgementStore) -> ReadingJudge:
    """A judge that asks as many at a time as the bar says."""
    judge = make_judge(spec)
    assert isinstance(judge, ReadingJudge)
    judge.asker.store, judge.asker.in_flight = store, IN_FLIGHT
    return judge


def seconds_asked(spec: str, n: int, folder: Path) -> tuple[float, float]:
    """Wall and processor seconds until n labels are asked for, answered and on disk; connections and SDK warm."""
    with JudgementStore(folder / "j.sqlite") as store:
        judge = reader(spec, store)
        judge.judge(PARAMETER, texts(IN_FLIGHT), repeat=1)
        began, busy = time.perf_counter(), time.process_time()
        judge.judge(PARAMETER, texts(n))
        took = time.perf_counter() - began, time.process_time() - busy
        assert len(store.usages()) == n + IN_FLIGHT
        judge.asker.close()
    return took


def seconds_replayed(spec: str, n: int, folder: Path) -> tuple[float, float]:
    """Seconds until n labels are there again from the kept replies, and from the kept judgements."""
    with JudgementStore(folder / "j.sqlite") as store:
        judge, asked = reader(spec, store), texts(n)
        keys = [judge.request(PARAMETER, text).key(judge.asker.provider.id) for text in asked]
        reply = judge.asker.ask([judge.request(PARAMETER, asked[0])])[0]
        assert reply is not None
        store.store_many((key, reply.as_json(), {"input_tokens": 400}) for key in keys)
        judge.asker.close()
    with JudgementStore(folder / "j.sqlite") as store:
        judge = reader(spec, store)
        began = time.perf_counter()
        judged = judge.judge(PARAMETER, asked)
        replies = time.perf_counter() - began
        assert [j.level for j in judged] == [1] * n
        store.put_many(judgement_row(judge.id, j) for j in judged)
        began = time.perf_counter()
        assert len(store.get(judge.id, PARAMETER.id)) == n
        return replies, time.perf_counter() - began


def run(quick: bool) -> Section:
    """Both wire formats through the real SDKs, then the replay."""
    n = IN_FLIGHT * (5 if quick else 40)
    n_replayed = N_REPLAYED // (10 if quick else 1)
    ideal = n / IN_FLIGHT * LATENCY
    rows, misses = [], []
    with answering(LATENCY) as specs, tempfile.TemporaryDirectory() as place:
        for name, spec in specs.items():
            folder = Path(place) / name
            took, busy = min(seconds_asked(spec, n, folder / str(k)) for k in range(1 if quick else 3))
            rows.append([f"{n:,} labels asked for, {name}", f"{took:.2f} s", f"{busy:.2f} s", f"{ideal / took:.0%}", f"{LEAST_PART:.0%}"])
            if ideal / took < LEAST_PART:
                misses.append(f"{name}: {ideal / took:.0%} of the ideal rate")
        for name, spec in specs.items():
            replies, judgements = seconds_replayed(spec, n_replayed, Path(place) / f"{name} again")
            for what, took in (("replies", replies), ("judgements", judgements)):
                rows.append([f"{n_replayed:,} labels from kept {what}, {name}", f"{took:.2f} s", "", "", f"{MOST_SECONDS:g} s"])
                if took > MOST_SECONDS:
                    misses.append(f"{n_replayed:,} from kept {what}: {took:.1f} s")
    outcome = "met" if not misses else "NOT met (" + "; ".join(misses) + ")"
    return Section(
        title="Labels are asked for as fast as the provider answers",
        command="python -m tests.benchmarks --only llm_throughput",
        columns=("task", "time", "processor time", "of the ideal rate", "bar"),
        rows=rows,
        bar=f"Bar: {LATENCY * 1000:.0f} ms latency and {IN_FLIGHT} in flight, at least {LEAST_PART:.0%} of {IN_FLIGHT / LATENCY:.0f} a "
        f"second; {N_REPLAYED:,} kept labels in under {MOST_SECONDS:g} s: {outcome}.",
        notes=[
            f"Responses of {N_WORDS} words through the real SDKs to a local server in a process of its own; every answer is on disk "
            "(flushed) before it counts. Fastest of three. A killed run goes on from kept replies where it had not read them, from kept "
            f"judgements otherwise. Load average of the machine while measured: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; "
            "the SDK takes about 1 ms of a processor for each call, and requests leave at least 1 ms "
            "apart (all at once, their answers come at once and wait for each other: 90%)."
        ],
    )
