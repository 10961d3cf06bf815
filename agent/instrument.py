"""Drawing and scoring in threads of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.adapted_checkpoints import Wanted
from probes.checkpoints import Checkpoints
from probes.request import Request
from probes.sampler import Draw, Question, encode_question


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn and scored.

    Attributes:
        per_question: Independent draws of each question at a checkpoint.
        max_tokens: Where a response is cut.
        seed: Each step has a stream of draws of its own, made from this seed and the step.
        prefixes: Prefix lengths (tokens) whose log-probabilities are kept too.
    """

    per_question: int
    max_tokens: int
    seed: int = 0
    prefixes: tuple[int, ...] = ()


class LocalInstrument:
    """An :class:`agent.recording.Instrument` of this process: every thread has a copy of the subject."""

    def __init__(self, checkpoints: Checkpoints, tokenizer: Any, questions: Sequence[Question], drawing: Drawing) -> None:
        """Keep what is asked and how.

        Args:
            checkpoints: The subject at every step; whoever opened it closes it.
            tokenizer: The subject's.
            questions: What is asked.
            drawing: How.
        """
        self.questions = tuple(questions)
        self.encoded = tuple(encode_question(tokenizer, question) for question in questions)
        self._checkpoints, self._tokenizer, self._drawing = checkpoints, tokenizer, drawing

    def draw(self, steps: Sequence[int]) -> Iterator[list[Draw]]:
        """The responses drawn at each of these steps."""
        how = self._drawing
        wanted = [Wanted(step, how.per_question, draw_seed(how.seed, step)) for step in steps]
        return self._checkpoints.draw(self._tokenizer, self.questions, wanted, how.max_tokens)

    def score(self, steps: Sequence[int], requests: Sequence[Request]) -> Iterator[npt.NDArray[np.float64]]:
        """Nats of all requests under each of these steps; equal requests are scored once."""
        return self._checkpoints.score(requests, steps, self._drawing.prefixes)


def draw_seed(seed: int, step: int) -> int:
    """One stream of draws per checkpoint, so that an interrupted recording goes on with the draws it would have had."""
    return int(np.random.SeedSequence([seed, 3, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
