"""Everything a discovery works on, in one place: the recording, the contrast and its halves, labels and files.

Texts and arrays live here and in the run directory; the loop's state holds ids only. Nothing here decides anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from agent import decisions
from agent.config import RunConfig
from agent.contrasts import ContrastSpec, Detection, build_contrast, choose_contrast, confirm_half, drawn_columns, prompt_codes
from agent.decisions import Decision, Standing
from agent.human_labels import HumanLabels
from agent.judge import Judge, Text
from agent.llm.asker import Asker
from agent.llm.protocol import AnsweredElsewhere
from agent.proposer import Proposer
from agent.records import Findings, Judgement, OrderParameter
from agent.remembered import Remembered, read_snapshot
from probes.dissimilarity import Contrast
from probes.explained_share import length_bins
from probes.trajectory import StepWeights, step_weights
from tracing import Recording
from tracing.events import EventLog
from tracing.json_lines import append_lines, read_lines
from tracing.judgements import JudgementRow, JudgementStore

Progress = Callable[[str, dict[str, Any]], None]


@dataclass
class Workbench:
    """A discovery in progress.

    Attributes:
        recording: What was read.
        config: What was asked.
        folder: Where everything is written.
        proposer, judge: Who is asked.
        second_judge: Measures the judge, where there is one.
        human_labels: What people said, to measure the judge, where there are any.
        progress: Called with an event's name and numbers while work goes on.
        publish: Called with the findings at the end; None: nothing is measured for a report (a null run only counts).
        given_hypotheses: Used instead of what the configuration names (null runs: those of the real run).
        given_contrast: Used instead of the recording's own contrast (null runs).
        discovery: Digest that names this discovery in `review.jsonl`.
    """

    recording: Recording
    config: RunConfig
    folder: Path
    proposer: Proposer
    judge: Judge
    progress: Progress = field(default=lambda name, numbers: None)
    publish: Callable[[Findings], object] | None = None
    given_contrast: Contrast | None = None
    given_hypotheses: Sequence[OrderParameter] | None = None
    discovery: str = ""
    second_judge: Judge | None = None
    human_labels: HumanLabels | None = None

    @cached_property
    def store(self) -> JudgementStore:
        """Every judgement ever made here, and every reply paid for, on disk."""
        store = JudgementStore(self.folder / "judgements.sqlite")
        for asker in self.askers:
            asker.store = store
        return store

    @property
    def askers(self) -> list[Asker]:
        """The roles that ask an LLM."""
        found = (getattr(role, "asker", None) for role in (self.proposer, self.judge, self.second_judge))
        return [asker for asker in found if isinstance(asker, Asker)]

    def waiting(self) -> str:
        """What is waited for, where answers are given elsewhere; empty when nothing is."""
        lines = (asker.provider.waiting() for asker in self.askers if isinstance(asker.provider, AnsweredElsewhere))
        told = "; ".join(line for line in lines if line)
        return told and f"{told}; then run the same command to go on"

    @cached_property
    def events(self) -> EventLog:
        """What the agent did, in order, on disk."""
        return EventLog(self.folder / "events.jsonl")

    def rng(self, purpose: int, round_number: int = 0) -> np.random.Generator:
        """A generator of its own for every purpose and round, so that a resumed run draws the same numbers."""
        return np.random.default_rng([self.config.seed, purpose, round_number])

    # ---- a reviewer's decisions

    @cached_property
    def decisions(self) -> list[Decision]:
        """Everything decided in this folder when this process started."""
        return decisions.read(self.folder)

    def reviewed(self, reviews: int) -> Standing:
        """What stood at the end of that many reviews."""
        return decisions.standing(self.decisions, self.discovery, reviews)

    @property
    def reviews_done(self) -> int:
        """Reviews that a reviewer ended; the loop may not have taken them in yet."""
        return decisions.reviews_done(self.decisions, self.discovery)

    @property
    def reviews_wanted(self) -> int:
        """Reviews the loop stops for: none without `--review`, else at least one."""
        return max(1, self.reviews_done) if self.config.review else 0

    # ---- the contrast and its halves

    @cached_property
    def chosen(self) -> tuple[ContrastSpec, Detection | None]:
        """The contrast and, with likelihoods, the transition curve behind it."""
        return choose_contrast(self.recording, self.config)

    @cached_property
    def contrast(self) -> Contrast:
        """All responses of the contrast."""
        return self.given_contrast or build_contrast(self.recording, self.chosen[0])

    @cached_property
    def confirm_mask(self) -> np.ndarray:
        """`(n,)` bool over the contrast's responses: the half on which acceptance is decided."""
        return confirm_half(self.contrast, self.config.seed)

    @cached_property
    def propose_rows(self) -> np.ndarray:
        """Rows of the contrast that the proposer may see."""
        return self.contrast.complete(~self.confirm_mask)

    @cached_property
    def confirm_rows(self) -> np.ndarray:
        """Rows of the contrast on which acceptance is decided and shares are measured."""
        return self.contrast.complete(self.confirm_mask)

    @cached_property
    def propose(self) -> Contrast:
        """The propose half."""
        return self.contrast.take(self.propose_rows)

    @cached_property
    def confirm(self) -> Contrast:
        """The confirm half."""
        return self.contrast.take(self.confirm_rows)

    # ---- texts and labels

    @cached_property
    def text_keys(self) -> tuple[str, ...]:
        """One hash per response of the recording; equal texts share one judgement."""
        return self.recording.responses.text_key

    @cached_property
    def texts(self) -> list[Text]:
        """The distinct texts of the contrast, in order of first appearance: what is judged."""
        r = self.recording.responses
        seen: dict[str, Text] = {}
        for i in self.contrast.index:
            seen.setdefault(self.text_keys[i], (self.text_keys[i], r.system[i], r.prompt[i], r.completion[i]))
        return list(seen.values())

    @cached_property
    def n_words(self) -> np.ndarray:
        """`(n,)` words of each response of the contrast."""
        completion = self.recording.responses.completion
        return np.array([len(completion[i].split()) for i in self.contrast.index])

    @cached_property
    def length_label(self) -> np.ndarray:
        """`(n,)` quantile bin of log words: the covariate every gain is measured beyond."""
        return length_bins(self.n_words)

    def judge_all(self, parameter: OrderParameter, repeat: int = 0) -> int:
        """Have every distinct text judged that is not yet; returns how many were asked for now."""
        return self._judge(parameter, self.texts, repeat, self.judge)

    def judge_texts(self, parameter: OrderParameter, texts: Sequence[Text]) -> int:
        """The same for these texts, of the contrast or others."""
        return self._judge(parameter, list(texts), 0, self.judge)

    def judge_rows(self, parameter: OrderParameter, rows: np.ndarray, repeat: int = 0, judge: Judge | None = None) -> int:
        """The same for the texts of some rows of the contrast only, by another judge if one is given."""
        return self._judge(parameter, self.texts_at(rows), repeat, judge or self.judge)

    def texts_at(self, rows: np.ndarray) -> list[Text]:
        """The distinct texts of some rows of the contrast."""
        keys = dict.fromkeys(self.text_keys[i] for i in self.contrast.index[rows])
        return [self._text_of[key] for key in keys]

    @cached_property
    def _text_of(self) -> dict[str, Text]:
        return {text[0]: text for text in self.texts}

    def _judge(self, parameter: OrderParameter, texts: list[Text], repeat: int, judge: Judge) -> int:
        known = self.store.get(judge.id, parameter.id, repeat)
        missing = [text for text in texts if text[0] not in known]
        if missing:
            self.store.put_many(judgement_row(judge.id, j) for j in judge.judge(parameter, missing, repeat))
        return len(missing)

    def readings(self, parameter: OrderParameter, repeat: int = 0) -> list[JudgementRow]:
        """One judgement per response of the contrast, from the store."""
        known = self.store.get(self.judge.id, parameter.id, repeat)
        return [known[self.text_keys[i]] for i in self.contrast.index]

    def labels(self, parameter: OrderParameter, repeat: int = 0) -> np.ndarray:
        """`(n,)` levels over the contrast's responses, -1 where missing."""
        key = (parameter.id, repeat)
        if key not in self._labels:
            readings = self.readings(parameter, repeat)
            self._labels[key] = np.array([-1 if r["level"] is None else r["level"] for r in readings], dtype=np.int64)
        return self._labels[key]

    def expected_levels(self, parameter: OrderParameter) -> np.ndarray:
        """`(n,)` expected level of each response where the judge gave probabilities, its level where not, -1 where missing."""
        return np.array([_expected(reading) for reading in self.readings(parameter)])

    def labels_at(self, parameter: OrderParameter, rows: np.ndarray, repeat: int = 0, judge: Judge | None = None) -> np.ndarray:
        """`(m,)` levels of some rows of the contrast, -1 where missing; only these have to be judged."""
        known = self.store.get((judge or self.judge).id, parameter.id, repeat)
        read = [known[self.text_keys[i]]["level"] for i in self.contrast.index[rows]]
        return np.array([-1 if level is None else level for level in read], dtype=np.int64)

    def levels_by_text(self, parameter: OrderParameter) -> dict[str, int | None]:
        """Levels of the contrast's texts judged so far, by text key; None where missing."""
        known = self.store.get(self.judge.id, parameter.id)
        return {key: known[key]["level"] for key, *_ in self.texts if key in known}

    def is_read(self, parameter: OrderParameter) -> bool:
        """Whether every text of the contrast was judged."""
        return (parameter.id, 0) in self._labels or len(self.levels_by_text(parameter)) == len(self.texts)

    def missing(self, parameter: OrderParameter) -> Counter[str]:
        """How many judgements of the contrast's responses are not a level, by reason; those never asked for do not count."""
        return Counter(r["status"] for r in self.readings_so_far(parameter) if r["level"] is None)

    def readings_so_far(self, parameter: OrderParameter) -> list[JudgementRow]:
        """One judgement per response of the contrast that was judged."""
        known = self.store.get(self.judge.id, parameter.id)
        return [known[self.text_keys[i]] for i in self.contrast.index if self.text_keys[i] in known]

    _labels: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    # ---- order parameters on disk

    @cached_property
    def _candidates_path(self) -> Path:
        return self.folder / "candidates.jsonl"

    @cached_property
    def parameters(self) -> dict[str, OrderParameter]:
        """Every order parameter proposed so far, by id."""
        if not self._candidates_path.exists():
            return {}
        lines = [line for _, line in read_lines(self._candidates_path)]
        return {p.id: p for p in (OrderParameter(**line["parameter"]) for line in lines)}

    def remember(self, parameters: Sequence[OrderParameter], round_number: int) -> None:
        """Write new order parameters down before anything is done with them; known ones are left alone."""
        new = [p for p in parameters if p.id not in self.parameters]
        if new:
            append_lines(self._candidates_path, [{"round": round_number, "parameter": p.model_dump(mode="json")} for p in new])
            self.parameters.update({p.id: p for p in new})

    @property
    def round_of(self) -> dict[str, int]:
        """The round each order parameter was proposed in, by id."""
        if not self._candidates_path.exists():
            return {}
        return {OrderParameter(**line["parameter"]).id: line["round"] for _, line in read_lines(self._candidates_path)}

    def get(self, ids: Sequence[str]) -> list[OrderParameter]:
        """Order parameters by id."""
        return [self.parameters[i] for i in ids]

    @cached_property
    def remembered(self) -> Remembered:
        """What other runs found, as the snapshot in the folder has it."""
        return read_snapshot(self.folder)

    # ---- along the run

    @cached_property
    def weights(self) -> StepWeights | None:
        """Importance weights of the contrast's responses at every checkpoint; None without likelihoods."""
        log_likelihood = self.recording.log_likelihood
        if log_likelihood is None or not self.contrast.likelihoods:
            return None
        index = self.contrast.index
        prompt = np.unique(prompt_codes(self.recording)[index], return_inverse=True)[1]
        return step_weights(log_likelihood[index], drawn_columns(self.recording)[index], prompt)


def _expected(reading: JudgementRow) -> float:
    if reading["level"] is None or reading["probabilities"] is None:
        return -1.0 if reading["level"] is None else float(reading["level"])
    return float(np.dot(np.arange(len(reading["probabilities"])), reading["probabilities"]))


def judgement_row(judge: str, judgement: Judgement) -> JudgementRow:
    """A judgement as the store keeps it."""
    return JudgementRow(
        judge=judge,
        parameter_id=judgement.parameter_id,
        text_key=judgement.response_key,
        repeat=judgement.repeat,
        status=judgement.status,
        level=judgement.level,
        probabilities=None if judgement.probabilities is None else list(judgement.probabilities),
        quote=judgement.quote,
    )
