"""The checkpoints of one run as one subject with exchangeable adapters, and work done on them by a few threads.

Every thread has a copy of the subject and computes alone, so a result is the same bits however many threads there are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

from probes.organism import Adapter, one_thread, set_adapter

Answer = TypeVar("Answer")


class Checkpoints:
    """A subject with its adapters by step. Close it (or use `with`) to end its threads."""

    def __init__(self, subject: Any, adapters: Mapping[int, Adapter], workers: int = 2) -> None:
        """Copy the subject once per worker.

        Args:
            subject: A peft model in evaluation mode.
            adapters: Step -> adapter.
            workers: Number of threads; each uses one core.
        """
        self.steps: tuple[int, ...] = tuple(sorted(adapters))
        self._adapters = dict(adapters)
        self._subjects: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            self._subjects.put(copy.deepcopy(subject))
        self._pool = ThreadPoolExecutor(workers, initializer=one_thread)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[[Any, int], Answer], steps: Sequence[int]) -> Iterator[Answer]:
        """`work(subject, step)` with the subject at each of these steps, in their order, as they become ready."""

        def run(step: int) -> Answer:
            subject = self._subjects.get()
            try:
                set_adapter(subject, self._adapters[step])
                return work(subject, step)
            finally:
                self._subjects.put(subject)

        return self._pool.map(run, steps)
