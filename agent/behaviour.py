"""The behavioural transition: how often a run's checkpoints answer misaligned, with the adapter at several scales (METHOD 5)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.checkpoint_source import checkpoints_in
from agent.errors import ConfigError
from agent.instrument import draw_seed
from agent.judge import Judge
from agent.records import Judgement, OrderParameter
from probes.echo import Echo, echoes
from probes.errors import SampleError
from probes.misalignment import COHERENT_ABOVE, MisalignmentRates, half_way, misalignment_rates, question_means
from probes.resampling import Interval
from probes.sampler import Question, sample

Progress = Callable[[str, int, int], None]  # what is done, how far, of how many


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        scale, step: Where it was drawn.
        question: Number of its question.
        text: As it was answered.
        aligned, coherent: The judge's scores, 0 to 100 or NaN.
        echo: Whether it reads like an answer of the training domain; None: not known.
    """

    scale: float
    step: int
    question: int
    text: str
    aligned: float = float("nan")
    coherent: float = float("nan")
    echo: bool | None = None


@dataclass(frozen=True)
class Cell:
    """One scale at one step.

    Attributes:
        everywhere, elsewhere: Rates over all questions, and over those outside the training domain (None: no domain is known, or no
            answer outside it could be read).
        echo: Rate of echoes of the training domain among the misaligned answers outside it; None without any.
    """

    scale: float
    step: int
    everywhere: MisalignmentRates
    elsewhere: MisalignmentRates | None
    echo: float | None


@dataclass(frozen=True)
class Behaviour:
    """The sweep.

    Attributes:
        cells: By scale, then step.
        transition: Scale -> step at which the rate (first threshold, outside the training domain where that is known) crosses half-way.
        thresholds: Of alignment.
        control: What the echo classifier would say of the base: (false alarms, recognised); None without it.
        notes: What is missing and why.
    """

    cells: tuple[Cell, ...]
    transition: dict[float, Interval | None]
    thresholds: tuple[float, ...]
    control: tuple[float, float] | None
    notes: tuple[str, ...]


def draw_answers(
    run: Path,
    questions: Sequence[Question],
    scales: Sequence[float],
    steps: Sequence[int],
    per_question: int,
    max_tokens: int,
    seed: int,
    base_model: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answers of a run's checkpoints with the adapter at each scale; the base (step 0) is drawn once, for it has no adapter to scale.

    Args:
        run: A run directory with adapters, or a Trainer's output.
        questions: What is asked.
        scales: Factors of the adapter's scale.
        steps: Checkpoints, the base among them.
        per_question: Draws of each question, at every step and scale.
        max_tokens: Where an answer is cut.
        seed: Of the draws.
        base_model: None: what the adapters name.
        device: None: the GPU if there is one.
        progress: Called as ("sampling", done, total).
    """
    from probes.checkpoints import Checkpoints
    from probes.scaled_subjects import ScaledSubjects
    from probes.subjects import detected_device, load_tokenizer

    source = checkpoints_in(run, base_model)
    if unknown := [step for step in steps if step not in source.steps]:
        raise ConfigError(f"{run}: expected steps among {', '.join(map(str, source.steps[:12]))}, …, found {unknown[0]}")
    if not source.adapters and set(scales) != {1.0}:
        raise ConfigError(f"{run}: expected --scales 1 for whole checkpoints: there is no adapter to scale")
    tokenizer = load_tokenizer(source.tokenizer_places()[0])
    cores = os.cpu_count() or 1
    workers = cores if detected_device(device) == "cpu" and source.adapters else 1
    found: list[Answer] = []
    for place, scale in enumerate(scales):

        def work(subject: Any, step: int, scale: float = scale, place: int = place) -> list[Answer]:
            draws = sample(subject, tokenizer, questions, per_question, draw_seed(seed + 1000 * place, step), max_tokens)
            return [Answer(scale, step, draw.question, draw.text) for draw in draws]

        wanted = [step for step in steps if step != 0 or place == 0]
        with Checkpoints(ScaledSubjects(source.subjects(device=device), scale), workers, 1 if workers > 1 else cores) as checkpoints:
            for done, answers in enumerate(checkpoints.each(work, wanted), start=1):
                found += answers
                if progress:
                    progress(f"sampling, scale {scale:g}", done, len(wanted))
    return found


def judged(
    answers: Sequence[Answer], questions: Sequence[Question], judge: Judge, misalignment: OrderParameter, coherence: OrderParameter | None
) -> list[Answer]:
    """The answers with the judge's scores: level k of n as 100 k/(n-1), a mean where the judge gives probabilities.

    Args:
        answers: From :func:`draw_answers`.
        questions: What was asked.
        judge: Sees question and answer, never scale or step.
        misalignment: The higher its level, the worse; the alignment score is 100 minus it.
        coherence: None: every answer counts as coherent.
    """
    texts = {(a.question, a.text): "" for a in answers}
    for question, text in texts:
        asked = questions[question]
        texts[question, text] = hashlib.sha256("\0".join((asked.system, asked.prompt, text)).encode()).hexdigest()[:32]
    put = [(key, questions[q].system, questions[q].prompt, text) for (q, text), key in texts.items()]
    wrong = _scores(judge.judge(misalignment, put), misalignment)
    sane = {} if coherence is None else _scores(judge.judge(coherence, put), coherence)
    return [
        Answer(a.scale, a.step, a.question, a.text, 100 - wrong[key], 100.0 if coherence is None else sane[key])
        for a in answers
        for key in (texts[a.question, a.text],)
    ]


def _scores(judgements: Sequence[Judgement], parameter: OrderParameter) -> dict[str, float]:
    top = len(parameter.levels) - 1
    found = {}
    for each in judgements:
        level = float("nan") if each.level is None else float(each.level)
        if each.level is not None and each.probabilities is not None:
            level = float(np.dot(each.probabilities, np.arange(top + 1)) / sum(each.probabilities))
        found[each.response_key] = 100 * level / top
    return found


def measure(answers: Sequence[Answer], in_domain: npt.NDArray[np.bool_] | None, thresholds: Sequence[float]) -> Behaviour:
    """Rates by scale and step, the place of the transition by scale, and the control for echoes.

    Args:
        answers: With the judge's scores.
        in_domain: `(n_questions,)` which questions are of the training domain; None: not known.
        thresholds: Of alignment; the first is used for places.
    """
    scales, steps = list(dict.fromkeys(a.scale for a in answers)), sorted({a.step for a in answers})
    echo, notes = _echo(answers, in_domain)
    marked = answers if echo is None else [replace(a, echo=bool(e)) for a, e in zip(answers, echo.is_echo, strict=True)]

    def at(scale: float, step: int) -> list[Answer]:
        return [a for a in marked if a.step == step and a.scale == (scale if step else scales[0])]  # the base is the same at every scale

    cells = tuple(_cell(scale, step, at(scale, step), in_domain, thresholds) for scale in scales for step in steps)
    places = {scale: _place([at(scale, step) for step in steps], steps, in_domain, thresholds[0]) for scale in scales}
    return Behaviour(cells, places, tuple(thresholds), None if echo is None else (echo.false_alarms, echo.recognised), notes)


def _echo(answers: Sequence[Answer], in_domain: npt.NDArray[np.bool_] | None) -> tuple[Echo | None, tuple[str, ...]]:
    if in_domain is None:
        return None, ("The training domain is not known (--training-questions), so echoes of it are not looked for.",)
    base = [a for a in answers if a.step == 0]
    question = np.array([a.question for a in base], dtype=np.int64)
    try:
        return echoes([a.text for a in base], in_domain[question], question, [a.text for a in answers]), ()
    except SampleError as error:
        return None, (f"Echoes of the training domain are not looked for: {error}.",)


def _cell(scale: float, step: int, own: Sequence[Answer], in_domain: npt.NDArray[np.bool_] | None, thresholds: Sequence[float]) -> Cell:
    outside = [] if in_domain is None else [a for a in own if not in_domain[a.question]]
    readable = any(np.isfinite(a.aligned) and np.isfinite(a.coherent) for a in outside)
    wrong = [a.echo for a in outside if a.echo is not None and _is_wrong(a, thresholds[0])]
    return Cell(
        scale, step, _rates(own, thresholds), _rates(outside, thresholds) if readable else None, float(np.mean(wrong)) if wrong else None
    )


def _is_wrong(answer: Answer, threshold: float) -> bool:
    return answer.aligned < threshold and answer.coherent > COHERENT_ABOVE


def _rates(answers: Sequence[Answer], thresholds: Sequence[float]) -> MisalignmentRates:
    aligned, coherent = (np.array(column, float) for column in ([a.aligned for a in answers], [a.coherent for a in answers]))
    return misalignment_rates(aligned, coherent, np.array([a.question for a in answers], np.int64), thresholds)


def _place(
    by_step: Sequence[Sequence[Answer]], steps: Sequence[int], in_domain: npt.NDArray[np.bool_] | None, threshold: float
) -> Interval | None:
    """Half-way step of the rate, over the questions outside the training domain where that is known."""
    if len(steps) < 3:
        return None
    columns = []
    for answers in by_step:
        own = [a for a in answers if in_domain is None or not in_domain[a.question]]
        columns.append(question_means(np.array([_is_wrong(a, threshold) for a in own]), np.array([a.question for a in own])))
    return half_way(np.array(steps, np.int64), np.stack(columns, axis=1))


def spread_steps(steps: Sequence[int], most: int) -> Iterator[int]:
    """At most `most` of the steps, evenly spaced, first and last among them."""
    if len(steps) <= most:
        yield from steps
        return
    yield from dict.fromkeys(steps[round(k * (len(steps) - 1) / (most - 1))] for k in range(most))
