"""The checkpoints of one run as one subject whose weights are exchanged, and work done on them by a few threads.

Every thread has a copy of the subject and computes alone, so a result is the same bits however many threads there are. LoRA adapters of
one base go through :mod:`probes.adapted_checkpoints`, which computes what they share once; whatever else there is, one checkpoint after
the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from probes.adapted_checkpoints import AdaptedCheckpoints, Wanted
from probes.law import Law
from probes.likelihood import log_likelihoods, plan, why_plain
from probes.lora_adapter import Adapted, lora_adapter, not_plain
from probes.organism import Adapter, set_adapter, use_cores
from probes.request import Request, distinct
from probes.sampler import Draw, Question, sample

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Subjects(Protocol):
    """A subject that can be put at any checkpoint of its run."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Checkpoints, ascending."""

    def at(self, step: int) -> Any:
        """The subject with the weights of a checkpoint, in evaluation mode; valid until the next call."""

    def copy(self) -> Subjects:
        """Another one, for another thread."""


@runtime_checkable
class AdaptedSubjects(Subjects, Protocol):
    """Subjects that may be LoRA adapters of one base."""

    def adapted(self) -> Adapted | None:
        """Base and adapters, sharing no module with the subject of :meth:`at`; None where they are more than plain LoRA."""


class AdapterSubjects:
    """:class:`Subjects` of one peft model and its adapters (a mapping that may read each from disk when it is asked for)."""

    def __init__(self, subject: Any, adapters: Mapping[int, Adapter]) -> None:
        self.steps: tuple[int, ...] = tuple(sorted(adapters))
        self._subject, self._adapters = subject, adapters

    def at(self, step: int) -> Any:
        """The subject with the adapter of a checkpoint."""
        set_adapter(self._subject, self._adapters[step])
        return self._subject

    def adapted(self) -> Adapted | None:
        """The base without peft's wrappers, and its adapters; None where whole weights are exchanged."""
        config = getattr(self._subject, "peft_config", {}).get("default")
        if config is None or not_plain(config.to_dict()):
            return None
        adapters = {step: lora_adapter(self._adapters[step], config.to_dict(), f"step {step}") for step in self.steps}
        return Adapted(copy.deepcopy(self._subject).unload(), adapters)

    def copy(self) -> AdapterSubjects:
        """The same adapters on a copy of the subject."""
        return AdapterSubjects(copy.deepcopy(self._subject), self._adapters)


class Checkpoints:
    """Threads with a copy of a subject each. Close it (or use `with`) to end its threads."""

    def __init__(self, subjects: Subjects, workers: int = 2, cores: int = 1) -> None:
        """Copy the subject once per worker.

        Args:
            subjects: The subject at every checkpoint.
            workers: Number of threads, each with a copy of the subject.
            cores: Cores that each of them uses; results are the same bits for the same number only.
        """
        self.steps: tuple[int, ...] = subjects.steps
        self._notes: tuple[str, ...] = ()
        self._subjects, self._workers, self._cores = subjects, workers, cores
        adapted = subjects.adapted() if isinstance(subjects, AdaptedSubjects) else None
        self._shared = None if adapted is None else AdaptedCheckpoints(adapted.subject, adapted.adapters, workers, cores)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shared is not None:
            self._shared.__exit__()
        if "_pool" in self.__dict__:
            self._pool.shutdown(cancel_futures=True)

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be done fast, and why."""
        return self._notes if self._shared is None else self._shared.notes

    def draw(
        self, tokenizer: Any, questions: Sequence[Question], wanted: Sequence[Wanted], max_tokens: int = 96, law: Law | None = None
    ) -> Iterator[list[Draw]]:
        """Responses drawn at checkpoints, one list for each of `wanted`, ordered by question; see :func:`probes.sampler.sample`."""
        if self._shared is not None:
            return self._shared.draw(tokenizer, questions, wanted, max_tokens, law)

        def work(subject: Any, each: Wanted) -> list[Draw]:
            return sample(subject, tokenizer, questions, each.per_question, each.seed, max_tokens, law=law)

        return self._each(work, wanted, [each.step for each in wanted])

    def score(
        self, requests: Sequence[Request], steps: Sequence[int], prefixes: Sequence[int] = (), law: Law | None = None
    ) -> Iterator[npt.NDArray[np.float64]]:
        """Nats of responses under each of these checkpoints, shape (n_requests, 1 + n_prefixes); equal requests are scored once."""
        if self._shared is not None:
            return self._shared.score(requests, steps, prefixes, law)
        first, place = distinct(requests)
        planned = plan([requests[k] for k in first])

        def work(subject: Any, _: int) -> npt.NDArray[np.float64]:
            scores = log_likelihoods(subject, planned, prefixes, law=law)[place]
            if reason := why_plain(subject):
                self._notes = (f"Slower than it could be, since prompts are run again for each response: {reason}",)
            return scores

        return self.each(work, steps)

    def each(self, work: Callable[[Any, int], Answer], steps: Sequence[int]) -> Iterator[Answer]:
        """`work(subject, step)` with the subject at each of these steps, in their order, as they become ready."""
        return self._each(work, steps, steps)

    def _each(self, work: Callable[[Any, Item], Answer], items: Sequence[Item], steps: Sequence[int]) -> Iterator[Answer]:
        def run(item: Item, step: int) -> Answer:
            subjects = self._idle.get()
            try:
                return work(subjects.at(step), item)
            finally:
                self._idle.put(subjects)

        return self._pool.map(run, items, steps)

    @cached_property
    def _idle(self) -> SimpleQueue[Subjects]:
        idle: SimpleQueue[Subjects] = SimpleQueue()
        for _ in range(self._workers):
            idle.put(self._subjects.copy())
        return idle

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        self._idle  # noqa: B018  (copied here, not by two threads at once)
        return ThreadPoolExecutor(self._workers, initializer=use_cores, initargs=(self._cores,))
