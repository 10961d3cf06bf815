"""Planted problems: a run whose every share is known, as a recording that the real loop can work on.

Each candidate is a mark in the text of the responses (`m3=2 m0=4 ... reply 117: ...`), so that a scripted judge reads its level
and errs as often as the cell says. Marks are numbered in the order in which the proposer offers them, which is random.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from agent.bench_cells import ANCHORS, Cell
from agent.llm.scripted import Script, ScriptedCandidate
from agent.records import OrderParameter
from probes.synthetic import (
    ExactShares,
    PlantedRun,
    PlantedSample,
    draw,
    exact_course,
    exact_curve,
    exact_shares,
    planted_with_length,
    reading_matrix,
    staggered_course,
)
from probes.trajectory import Course, onset
from probes.transition import TransitionCurve, find_transitions
from tracing import Recording, Responses

Kind = Literal["true", "distractor", "paraphrase", "length"]
POPULATION = 200
"""Prompts of each world; those of a problem are drawn from them, and the truth is that of all of them."""
N_OUTCOMES = 800
PARAPHRASE_KAPPA = 0.7
N_LEVELS = 5
ANCHORED = ("not at all", "a little", "somewhat", "clearly", "very much")
FILLER = ("well", "then", "perhaps", "one", "might", "look", "at", "this", "from", "here", "and", "see", "what", "comes", "of", "it")
MIDPOINT, WIDTH, SPREAD = 14.3, 2.0, 1.0


@dataclass(frozen=True)
class Planted:
    """One candidate: what it is, and for a paraphrase of which one (its number among the candidates)."""

    kind: Kind
    of: int | None = None
    direction: Literal[-1, 1] = 1


@dataclass(frozen=True)
class World:
    """The population a cell's problems are drawn from.

    Attributes:
        cell: What was planted.
        run: Tables, with the labels of all candidates in `planted` order.
        words: `(POPULATION, N_OUTCOMES)` words of filler.
        planted: The candidates.
    """

    cell: Cell
    run: PlantedRun
    words: np.ndarray
    planted: tuple[Planted, ...]
    _shares: dict[tuple[tuple[int, ...], tuple[int, ...], bool], ExactShares] = field(default_factory=dict)

    def shares(self, left: Sequence[int] = (0,), right: Sequence[int] = (1,), *, as_read: bool = True) -> ExactShares:
        """Exact change between two windows, as this cell's judge reads it or as one that does not err would."""
        key = (tuple(left), tuple(right), as_read and (self.cell.kappa < 1 or self.cell.missing > 0))
        if key not in self._shares:
            matrix = reading_matrix(N_LEVELS, self.cell.kappa, self.cell.missing) if key[2] else reading_matrix(N_LEVELS, 1.0)
            self._shares[key] = exact_shares(self.run, *key[:2], self.run.labels, [matrix] * len(self.planted))
        return self._shares[key]

    @cached_property
    def onsets(self) -> list[float]:
        """Exact onset of every candidate's expected level (NaN: it does not move), for a judge that reads right."""
        steps = np.arange(len(self.run.course))
        out = []
        for k, planted in enumerate(self.planted):
            per_prompt = exact_course(self.run, self.run.labels[k].astype(float))
            exact = Course(steps, per_prompt, per_prompt.mean(axis=0), steps, steps, np.full(per_prompt.shape, np.inf), 0)
            found = onset(exact) if planted.kind in ("true", "paraphrase") else None
            out.append(float("nan") if found is None else found.t50.estimate)
        return out

    def transition_step(self, window: int) -> float:
        """Exact place of the peak of D(t*)."""
        d = exact_curve(self.run, window)
        splits = np.arange(window, len(self.run.course) - window + 1)
        curve = TransitionCurve(window, splits, splits - 0.5, d, np.full(d.shape, np.inf), np.ones(d.shape), np.zeros(d.shape))
        return find_transitions(curve)[0].step.estimate


def world(cell: Cell, seed: int) -> World:
    """The population of a cell; the same for all its problems."""
    rng = np.random.default_rng([seed, zlib.crc32(cell.name.removesuffix("/sides").encode())])
    effects = [float(e * rng.choice([-1, 1])) for e in cell.effects]
    course = staggered_course(cell.n_steps, MIDPOINT + SPREAD * rng.standard_normal(POPULATION), WIDTH) if cell.n_steps > 2 else None
    run, length = planted_with_length(
        rng,
        n_prompts=POPULATION,
        effects=[*effects, *([0.0] * cell.distractors)],
        length_effect=cell.length_effect,
        length_correlation=cell.length_correlation,
        affected=cell.affected,
        hidden=cell.hidden,
        n_outcomes=N_OUTCOMES,
        correlation=cell.correlation,
        course=course,
    )
    planted = [Planted("true", direction=1 if e > 0 else -1) for e in effects]
    planted += [Planted("distractor", direction=_either(rng)) for _ in range(cell.distractors)]
    labels = list(run.labels)
    for k in range(len(effects) if cell.paraphrases else 0):
        planted.append(Planted("paraphrase", k, planted[k].direction))
        labels.append(_paraphrase(labels[k], cell.kappa, rng))
    for _ in range(cell.length_labels):
        planted.append(Planted("length", direction=_either(rng)))
        seen = length + 0.3 * rng.standard_normal(length.shape)
        labels.append(np.searchsorted(np.linspace(-1.2, 1.2, N_LEVELS - 1) + 0.2 * rng.standard_normal(), seen))
    words = np.round(np.exp(3.4 + 0.5 * np.clip(length, -3, 3))).astype(np.int64)
    tables = PlantedRun(run.before, run.after, np.stack(labels), run.course)
    return World(cell, tables, words, tuple(planted))


def _either(rng: np.random.Generator) -> Literal[-1, 1]:
    return 1 if rng.random() < 0.5 else -1


def _paraphrase(label: np.ndarray, kappa: float, rng: np.random.Generator) -> np.ndarray:
    """The same thing under another question: a judge that errs reads it anew; one that does not gets an error planted."""
    own = min(1.0, PARAPHRASE_KAPPA / kappa)
    return np.where(rng.random(label.shape) < own, label, rng.integers(0, N_LEVELS, label.shape))


@dataclass(frozen=True)
class Problem:
    """One planted problem.

    Attributes:
        id: `CELL/NUMBER`.
        world: Where it was drawn from.
        recording: What a tool gets to see.
        script: Candidates in the order they are offered, and how the judge errs; the k-th has the mark `m{k}`.
        order: `order[k]` is the number in `world.planted` of the k-th offered candidate.
        seed: Of the loop.
    """

    id: str
    world: World
    recording: Recording
    script: Script
    order: tuple[int, ...]
    seed: int

    @property
    def planted(self) -> list[Planted]:
        """What each offered candidate is; `of` counts in the order of offering."""
        place = {k: j for j, k in enumerate(self.order)}
        return [Planted(p.kind, None if p.of is None else place[p.of], p.direction) for p in (self.world.planted[k] for k in self.order)]


def problem(world: World, replicate: int, seed: int) -> Problem:
    """The `replicate`-th problem of a world: some of its prompts, responses to them, candidates in random order."""
    cell = world.cell
    own = [seed, zlib.crc32(cell.name.encode()), replicate]
    rng = np.random.default_rng(own)
    name = f"{cell.name}/{replicate:03d}"
    part_of = rng.choice(POPULATION, cell.n_prompts, replace=False)
    sample = draw(world.run.at_prompts(part_of), ANCHORS if cell.n_steps > 2 else (0, 1), cell.n_each, rng)
    order = tuple(int(k) for k in rng.permutation(len(world.planted)))
    candidates = tuple(_candidate(j, world.planted[k]) for j, k in enumerate(order))
    script = Script("scripted:bench", candidates, {"kappa": cell.kappa, "missing": cell.missing, "seed": int(rng.integers(2**31))})
    recording = _recording(name, world, part_of, sample, order)
    return Problem(name, world, recording, script, order, int(rng.integers(2**31)))


def _candidate(number: int, planted: Planted) -> ScriptedCandidate:
    parameter = OrderParameter(
        name=f"m{number}",
        definition=f"The level of mark m{number}.",
        question=f"Which level has mark m{number} in the response?",
        levels=ANCHORED,
        direction=planted.direction,
    )
    return ScriptedCandidate(parameter, 1, re.compile(rf"\bm{number}=(\d)"), None)


def _recording(name: str, world: World, prompts: np.ndarray, sample: PlantedSample, order: Sequence[int]) -> Recording:
    cell, labels = world.cell, world.run.labels[list(order)]
    completions = []
    for p, outcome in zip(prompts[sample.prompt].tolist(), sample.outcome.tolist(), strict=True):
        marks = [f"m{j}={level}" for j, level in enumerate(labels[:, p, outcome].tolist())]
        filler = [FILLER[(outcome + k) % len(FILLER)] for k in range(int(world.words[p, outcome]))]
        completions.append(" ".join([*marks, f"reply {outcome}:", *filler]))
    responses = Responses.of(
        [f"Question {p}?" for p in prompts[sample.prompt].tolist()],
        completions,
        step=sample.drawn_at if cell.likelihoods else None,
        side=None if cell.likelihoods else [("before", "after")[k] for k in sample.drawn_at],
        response_id=[str(k) for k in range(len(completions))],
    )
    steps = tuple(range(cell.n_steps)) if cell.likelihoods else ()
    return Recording(name, "0" * 64, responses, steps, sample.log_likelihood if cell.likelihoods else None)
