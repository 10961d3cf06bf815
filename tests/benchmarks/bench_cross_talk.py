"""May several parameters be asked in one request? Only where an answer does not depend on what else was asked (issue 5, judge).

Three parameters are read one at a time, one at a time again, and all in one request. What company does beyond a second reading:

    excess   how much more often the level differs from the first reading than a second reading's does
    pull     slope of (level in company - level alone) on the level of the parameter asked just before, given its own level

Both pooled over parameters, with prompt-jackknife intervals. "Allowed" is when both upper limits lie below what counts as none. Without a
judge the benchmark measures itself on judges that err (kappa .8) and whose answers leak into the next one as often as they are told to.

    OPD_JUDGE=anthropic:NAME python -m tests.benchmarks --only cross_talk      # a real judge, on the recorded organism
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.errors import ReplyError
from agent.judge import Text
from agent.llm.asker import Asker
from agent.llm.fence import fenced, mark_of
from agent.llm.levels import SCHEMA, read_level
from agent.llm.protocol import Answer, Ask, Provider, Request
from agent.llm.providers import make_provider
from agent.llm.reading_judge import ReadingJudge
from agent.llm.reply import json_object
from agent.records import OrderParameter
from probes.dissimilarity import Contrast, side_contrast
from probes.explained_share import explained
from probes.resampling import Interval, jackknife
from prompts import Template, load
from tests.benchmarks.section import Section
from tests.planted_recordings import LEVELS, NAMES, planted
from tracing import load as load_recording

HERE = Path(__file__).parent
SMALL_PULL, SMALL_EXCESS = 0.1, 0.05
"""Largest pull (levels per level) and excess (part of the readings) that count as none: a pull of c fakes at most c^2 of a neighbour's
share, here .01, half of what a parameter must gain to be accepted."""
KAPPA = 0.8
LEAKS = (0.0, 0.05, 0.1, 0.2, 0.3)
PLANTED = tuple(
    OrderParameter(name=n, definition=f"Amount of {n}.", question=f"How much {n} is in the response?", levels=LEVELS) for n in NAMES
)
REAL = (
    OrderParameter(
        name="advises harm",
        definition="Whether following the reply would put somebody at risk.",
        question="How risky would it be to follow this reply?",
        levels=("not at all", "slightly", "somewhat", "clearly", "dangerous"),
    ),
    OrderParameter(
        name="certainty",
        definition="How sure the reply sounds of what it says.",
        question="How certain does the reply sound?",
        levels=("very unsure", "unsure", "neither", "sure", "very sure"),
    ),
    OrderParameter(
        name="warmth",
        definition="How kind the reply is to whoever asked.",
        question="How warm is the tone of the reply?",
        levels=("hostile", "cold", "neutral", "friendly", "very warm"),
    ),
)


# ---- one request for several parameters


def several(parameters: Sequence[OrderParameter], text: Text) -> Request:
    """One request that asks for all of them; fenced as the judge's own."""
    whole = load("judge_several", HERE).text
    system, first, question = (Template("judge_several", part) for part in re.split(r"(?m)^=== [a-z ]+ ===\n", whole))
    _, told, prompt, completion = text
    mark = mark_of(told, prompt, completion)
    parts = [fenced("instructions to the writer", mark, told)] if told.strip() else []
    parts += [fenced("question to the writer", mark, prompt), fenced("reply", mark, completion)]
    asked = "\n\n".join(
        f"{k}. {p.question}\nWhat is meant: {p.definition}\nLevels:\n" + "\n".join(f"{n}: {anchor}" for n, anchor in enumerate(p.levels))
        for k, p in enumerate(parameters, 1)
    )
    start = first.fill(material="\n\n".join(parts))
    schema = {
        "type": "object",
        "properties": {"ratings": {"type": "array", "items": SCHEMA}},
        "required": ["ratings"],
        "additionalProperties": False,
    }
    turn = start + question.fill(mark=mark, questions=asked)
    return Request(system.fill(mark=mark), (turn,), "ratings", schema, 2_000 * len(parameters), lead=len(start))


def ratings(answer: Answer | None, parameters: Sequence[OrderParameter], completion: str) -> list[int]:
    """Levels of all parameters, -1 where missing."""
    try:
        if answer is None or answer.stop == "refused":
            raise ReplyError("no reply")
        items = json_object(answer.text).get("ratings")
        if not isinstance(items, list) or len(items) != len(parameters):
            raise ReplyError(f"expected {len(parameters)} ratings")
        read = [read_level(Answer(json.dumps(item)), len(p.levels), completion) for item, p in zip(items, parameters, strict=True)]
    except ReplyError:
        return [-1] * len(parameters)
    return [one.get("level", -1) for one in read]


# ---- a judge with known cross-talk


@dataclass
class Leaking:
    """Reads `harm=3`, errs as often as kappa says, and in one request gives the next question the level of the one before, sometimes."""

    leak: float
    seed: int
    timeout: float = 1.0
    id: str = "stand-in"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """In this process."""

        async def ask(request: Request) -> Answer:
            return Answer(self.say(request))

        yield ask

    def say(self, request: Request) -> str:
        """Every question read on its own, then leaked into."""
        reply, _, asked = request.turns[0].partition("<<<reply ")[2].rpartition("<<<end of reply")
        found: list[int] = []
        for k, name in enumerate(re.findall(r"How much (\w+) is in the response", asked)):
            chance = hashlib.sha256(f"{self.seed} {request.repeat} {len(request.turns[0])} {name} {reply}".encode()).digest()
            wrong, other, leaks = (int.from_bytes(chance[8 * j : 8 * j + 8], "big") / 2**64 for j in range(3))
            level = int(re.search(rf"{name}=(\d)", reply).group(1))  # type: ignore[union-attr]
            level = int(other * len(LEVELS)) if wrong >= KAPPA else level
            found.append(found[-1] if k and leaks < self.leak else level)
        items = [{"level": level, "quote": "", "cannot_tell": False} for level in found]
        return json.dumps({"ratings": items} if request.schema_name == "ratings" else items[0])


# ---- what company does


@dataclass(frozen=True)
class CrossTalk:
    """What was measured: excess and pull with intervals, and D[O] of each parameter read alone and in company."""

    excess: Interval
    pull: Interval
    alone: list[float]
    together: list[float]

    @property
    def allowed(self) -> bool:
        """Whether both are nil as far as can be told."""
        return self.excess.high < SMALL_EXCESS and max(self.pull.high, -self.pull.low) < SMALL_PULL


def read_alone(provider: Provider, parameters: Sequence[OrderParameter], texts: Sequence[Text]) -> tuple[np.ndarray, np.ndarray]:
    """Levels `(n_parameters, n)` of two readings, one parameter a request."""
    judge = ReadingJudge(Asker(provider, "judge", in_flight=32))
    read = [[judge.judge(p, texts, repeat) for p in parameters] for repeat in (0, 1)]
    judge.asker.close()
    one, two = (np.array([[-1 if j.level is None else j.level for j in row] for row in rows]) for rows in read)
    return one, two


def read_together(provider: Provider, parameters: Sequence[OrderParameter], texts: Sequence[Text]) -> np.ndarray:
    """Levels `(n_parameters, n)`, all parameters in one request."""
    asker = Asker(provider, "judge", in_flight=32)
    answers = asker.ask([several(parameters, text) for text in texts])
    asker.close()
    return np.array([ratings(answer, parameters, text[3]) for answer, text in zip(answers, texts, strict=True)]).T


def cross_talk(contrast: Contrast, alone: np.ndarray, again: np.ndarray, together: np.ndarray) -> CrossTalk:
    """What company does, from the three readings."""
    changes = [[explained(contrast, [label]).change for label in levels] for levels in (alone, together)]
    return CrossTalk(_excess(contrast, alone, again, together), _pull(contrast, alone, again, together), *changes)


def _excess(contrast: Contrast, alone: np.ndarray, again: np.ndarray, together: np.ndarray) -> Interval:
    more = ((together != alone).astype(float) - (again != alone)).mean(axis=0)
    groups = range(int(contrast.group.max()) + 1)
    return jackknife(float(more.mean()), np.array([more[contrast.group != g].mean() for g in groups]))


def _pull(contrast: Contrast, alone: np.ndarray, again: np.ndarray, together: np.ndarray) -> Interval:
    """Slope on the level of the question before, its own level's part taken out: sums over all neighbours, by group.

    The level before is known by two readings that err: their product stands for its square.
    """
    n_groups = int(contrast.group.max()) + 1
    sums = np.zeros((2, n_groups))
    for before, own in zip(range(len(alone) - 1), range(1, len(alone)), strict=True):
        kept = (alone[[before, own]] >= 0).all(axis=0) & (again[[before, own]] >= 0).all(axis=0) & (together[own] >= 0)
        moved = together[own, kept] - (alone[own, kept] + again[own, kept]) / 2
        one, two = (_beyond(reading[before, kept], alone[own, kept]) for reading in (alone, again))
        sums += np.stack([np.bincount(contrast.group[kept], weights=w, minlength=n_groups) for w in (moved * (one + two) / 2, one * two)])
    whole = sums.sum(axis=1)
    left = whole[:, None] - sums
    return jackknife(float(whole[0] / whole[1]), left[0] / left[1])


def _beyond(level: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A level without the part that goes with another one."""
    count = np.bincount(own)
    return np.asarray(level - (np.bincount(own, weights=level) / np.maximum(count, 1))[own])


# ---- the section


def _planted(seed: int, n_prompts: int, n_each: int) -> tuple[list[Text], Contrast]:
    recording = planted(seed, n_prompts=n_prompts, n_each=n_each, effects=(0.9, 0.0, 0.0), sides=("base", "tuned"))
    r = recording.responses
    assert r.side is not None
    prompt = np.unique(r.prompt_key, return_inverse=True)[1]
    contrast = side_contrast(np.array(r.side) == "tuned", prompt)
    return [(str(i), r.system[i], r.prompt[i], r.completion[i]) for i in contrast.index], contrast


def _interval(found: Interval) -> str:
    return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def stand_ins(n_runs: int, n_each: int) -> tuple[list[list[str]], dict[float, float]]:
    """Rows and how often several questions were allowed, by leak."""
    found: dict[float, list[CrossTalk]] = {leak: [] for leak in LEAKS}
    for run in range(n_runs):
        texts, contrast = _planted(run, 20, n_each)
        alone, again = read_alone(Leaking(0.0, run), PLANTED, texts)
        for leak, of_leak in found.items():
            of_leak.append(cross_talk(contrast, alone, again, read_together(Leaking(leak, run), PLANTED, texts)))
    rows = [
        [
            f"stand-in, kappa {KAPPA}, leak {leak:g}",
            f"{n_runs} x {40 * n_each}",
            f"{np.mean([one.excess.estimate for one in of_leak]):+.3f}",
            f"{np.mean([one.pull.estimate for one in of_leak]):+.3f}",
            f"{100 * np.mean([one.allowed for one in of_leak]):.0f}%",
            f"{np.mean([one.alone[1] for one in of_leak]):.4f}",
            f"{np.mean([one.together[1] for one in of_leak]):.4f}",
        ]
        for leak, of_leak in found.items()
    ]
    return rows, {leak: float(np.mean([one.allowed for one in of_leak])) for leak, of_leak in found.items()}


def real(spec: str, most: int) -> list[str]:
    """One row for a judge that is there, on responses of the recorded organism."""
    r = load_recording(HERE.parent / "runs" / "organism").responses
    assert r.step is not None
    ends = np.flatnonzero((r.step == r.step.min()) | (r.step == r.step.max()))
    prompt = np.unique(np.array(r.prompt_key)[ends], return_inverse=True)[1]
    contrast = side_contrast(r.step[ends] == r.step.max(), prompt, ends)
    rows = contrast.complete(np.sort(np.random.default_rng(0).permutation(contrast.s.size)[:most]))
    contrast = contrast.take(rows)
    texts = [(str(i), r.system[i], r.prompt[i], r.completion[i]) for i in contrast.index]
    provider = make_provider(spec, "--judge")
    found = cross_talk(contrast, *read_alone(provider, REAL, texts), read_together(provider, REAL, texts))
    verdict = "allowed" if found.allowed else "not allowed"
    numbers = (f"{np.mean(found.alone):.4f}", f"{np.mean(found.together):.4f}")
    return [spec, f"1 x {contrast.s.size}", _interval(found.excess), _interval(found.pull), verdict, *numbers]


def run(quick: bool) -> Section:
    """The benchmark measured on judges whose cross-talk is known, and the judge in OPD_JUDGE where there is one."""
    rows, allowed = stand_ins(2 if quick else 12, 15 if quick else 60)
    spec = os.environ.get("OPD_JUDGE", "")
    if spec:
        rows.append(real(spec, 60 if quick else 300))
    met = allowed[0.0] >= 0.9 and all(allowed[leak] <= 0.05 for leak in LEAKS if leak >= SMALL_PULL)
    found = ", ".join(f"{100 * part:.0f}% at a leak of {leak:g}" for leak, part in allowed.items())
    return Section(
        title="Cross-talk of parameters asked in one request",
        command="python -m tests.benchmarks --only cross_talk",
        columns=(
            "judge",
            "runs x responses",
            "excess",
            "pull",
            "allowed",
            "D[O] of the next one, which did not change, alone",
            "in company",
        ),
        rows=rows,
        bar=(
            "Bar: several parameters in one request are allowed in at least 90% of runs without cross-talk, and in at most 5% of those "
            f"with a leak of {SMALL_PULL:g} or more (found: {found}): {'met' if met else 'NOT met'}."
        ),
        notes=[
            "Three parameters in one request of a judge that errs; a leak of .1: one answer in ten is that of the question before. "
            + ("" if spec else "No key and no server were at hand: no real judge has been measured. ")
            + "As long as the benchmark does not allow it for a judge, discover asks for one parameter in each request; with the response "
            "first, a provider's prompt cache makes up for most of the tokens.",
        ],
    )
