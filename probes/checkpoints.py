"""The checkpoints of one run as one subject whose weights are exchanged, and work done on them by a few threads.

Every thread has a copy of the subject and computes alone, so a result is the same bits however many threads there are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from probes.organism import Adapter, set_adapter, use_cores

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


class AdapterSubjects:
    """:class:`Subjects` of one peft model and its adapters (a mapping that may read each from disk when it is asked for)."""

    def __init__(self, subject: Any, adapters: Mapping[int, Adapter]) -> None:
        self.steps: tuple[int, ...] = tuple(sorted(adapters))
        self._subject, self._adapters = subject, adapters

    def at(self, step: int) -> Any:
        """The subject with the adapter of a checkpoint."""
        set_adapter(self._subject, self._adapters[step])
        return self._subject

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
        self._idle: SimpleQueue[Subjects] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(subjects.copy())
        self._pool = ThreadPoolExecutor(workers, initializer=use_cores, initargs=(cores,))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[[Any, int], Answer], steps: Sequence[int]) -> Iterator[Answer]:
        """`work(subject, step)` with the subject at each of these steps, in their order, as they become ready."""

        def run(step: int) -> Answer:
            subjects = self._idle.get()
            try:
                return work(subjects.at(step), step)
            finally:
                self._idle.put(subjects)

        return self._pool.map(run, steps)
