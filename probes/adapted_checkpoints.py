"""The LoRA checkpoints of one base, sampled in mixed batches and scored with everything that they share computed once.

Adapters are read when they are used, one a worker for scoring and those of a batch for sampling, so memory does not grow with the number
of checkpoints. Workers are threads, each with a copy of the subject's modules but not of its weights. torch is imported inside functions.
"""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from probes.decoding import Drawn, Row, draw_rows, draw_rows_plainly
from probes.errors import SampleError
from probes.law import Law
from probes.layer_stack import Below, LayerStack
from probes.lora_adapter import LoraAdapter, adapted_modules, read_lora_adapter
from probes.lora_hooks import LoraHooks
from probes.organism import use_cores
from probes.plain_likelihood import plain_log_likelihoods
from probes.request import Request, distinct
from probes.sampler import Draw, Question, as_draws, question_rows, row_batches, rows_in_memory, stop_tokens
from probes.token_tree import TOKENS, Pack, pack
from probes.tree_likelihood import Tree, trusted

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Scores = npt.NDArray[np.float64]

SHARED_BYTES = 1 << 30
"""Hidden states shared by checkpoints that are held at a time; more responses are scored in several turns."""


@dataclass(frozen=True)
class Wanted:
    """Draws at one checkpoint: `per_question` of each question; the seed alone decides them."""

    step: int
    per_question: int
    seed: int


@dataclass(frozen=True)
class _Worker:
    """A copy of the subject; `stack` is None where its architecture has to be run plainly, by `hooks` alone."""

    subject: Any
    stack: LayerStack | None
    hooks: LoraHooks


class AdaptedCheckpoints:
    """A base with its adapters by step. Close it (or use `with`) to end its threads.

    Attributes:
        steps: Ascending.
        notes: What cannot be shared and why.
    """

    def __init__(
        self,
        subject: Any,
        adapters: Mapping[int, LoraAdapter | Path],
        workers: int = 1,
        cores: int = 1,
        tokens_per_pack: int = TOKENS,
        shared_bytes: int = SHARED_BYTES,
        ahead: int | None = None,
    ) -> None:
        """Copy the subject's modules once a worker and find out what can be shared.

        Args:
            subject: The base: a causal language model of transformers without peft's wrappers, in evaluation mode, on its device.
            adapters: Step -> adapter, or peft's folder of one, which is read whenever it is needed.
            workers: Threads.
            cores: Cores each of them uses.
            tokens_per_pack: Tokens run at a time in scoring.
            shared_bytes: Memory for what checkpoints share.
            ahead: Pieces begun before they are asked for; None: two a worker.

        Raises:
            SampleError: An adapter is none of this base.
        """
        self.steps: tuple[int, ...] = tuple(sorted(adapters))
        self.notes: tuple[str, ...] = ()
        self._adapters = dict(adapters)
        self._ahead = 2 * workers if ahead is None else ahead
        self._tokens_per_pack, self._shared_bytes = tokens_per_pack, shared_bytes
        self._last: tuple[Sequence[Request], list[tuple[Tree, Below]]] = [], []  # the same responses often come again for other steps
        modules = sorted({name for adapter in adapters.values() for name in adapted_modules(adapter)})
        self._pool = ThreadPoolExecutor(workers, initializer=use_cores, initargs=(cores,))
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        # Made in the pool: how many cores a thread uses decides the bits of what it computes.
        for worker in self._pool.map(lambda _: self._worker(_same_weights(subject), modules), range(workers)):
            self._idle.put(worker)

    def __enter__(self) -> AdaptedCheckpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def adapter(self, step: int) -> LoraAdapter:
        """The adapter of a checkpoint."""
        found = self._adapters[step]
        return found if isinstance(found, LoraAdapter) else read_lora_adapter(found)

    def score(
        self, requests: Sequence[Request], steps: Sequence[int], prefixes: Sequence[int] = (), law: Law | None = None
    ) -> Iterator[Scores]:
        """Log-probabilities of responses under each of these checkpoints, in their order, as they become ready.

        Args:
            requests: Responses with their prompts; what occurs twice is scored once.
            steps: Checkpoints.
            prefixes: Prefix lengths in tokens.
            law: The law they were sampled by; None: temperature 1, nothing else.

        Yields:
            Nats, shape (n_requests, 1 + len(prefixes)): the whole response, then its first `prefixes[k]` tokens (all, when it is shorter).

        Raises:
            SampleError: Nothing to score, or a log-probability is NaN (the checkpoint's weights are broken).
        """
        if not requests:
            raise SampleError("expected responses to score, found none")
        first, place = distinct(requests)
        kept = [requests[k] for k in first]
        turns = self._turns(kept)
        found = [np.full((len(kept), 1 + len(prefixes)), np.nan) for _ in steps]
        for turn, packs in enumerate(turns, 1):
            if self._last[0] != kept or len(turns) > 1:
                self._last = [], []  # freed before the next is made
                self._last = kept, list(self._in_order(self._share, packs))
            shared = self._last[1]
            score_one = partial(self._score_one, requests=kept, shared=shared, prefixes=prefixes, law=law or Law())
            for column, parts in zip(found, self._in_order(score_one, steps), strict=True):
                for rows, scores in parts:
                    column[rows] = scores
                if turn == len(turns):
                    yield column[place]

    def draw(
        self,
        tokenizer: Any,
        questions: Sequence[Question],
        wanted: Sequence[Wanted],
        max_tokens: int = 96,
        law: Law | None = None,
        rows_per_batch: int | None = None,
    ) -> Iterator[list[Draw]]:
        """Draw responses at several checkpoints, in batches that mix them.

        Args:
            tokenizer: The subject's.
            questions: What is asked.
            wanted: Where, how many and by which seeds.
            max_tokens: A response is cut there; the cut response is the event "begins so".
            law: How logits become probabilities; None: temperature 1, nothing else.
            rows_per_batch: Responses drawn at a time; None: as many as `probes.sampler.CACHE_BYTES` hold.

        Yields:
            For each of `wanted` its draws, ordered by question.

        Raises:
            SampleError: Nothing to draw, or the tokenizer has no stop token.
        """
        with self._working() as worker:
            stop = stop_tokens(worker.subject, tokenizer)
            batch = rows_per_batch or rows_in_memory(worker.stack, max_tokens)
        rows = (
            row
            for index, each in enumerate(wanted)
            for row in question_rows(tokenizer, questions, each.per_question, each.seed, max_tokens, index)
        )
        work = partial(self._draw, wanted=wanted, law=law or Law(), stop=stop)
        drawn = itertools.chain.from_iterable(self._in_order(work, row_batches(rows, batch)))
        for each in wanted:
            yield as_draws(tokenizer, list(itertools.islice(drawn, len(questions) * each.per_question)), each.per_question, stop)

    def _in_order(self, work: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
        """Answers in the order of the items, few of which are begun before their turn."""
        running: deque[Future[Answer]] = deque()
        try:
            for item in items:
                running.append(self._pool.submit(work, item))
                if len(running) > self._ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def _worker(self, subject: Any, modules: Sequence[str]) -> _Worker:
        try:
            stack = LayerStack(subject, modules)
        except SampleError as error:
            return self._plainly(subject, modules, error)
        try:
            return _Worker(subject, trusted(stack), stack.hooks)
        except SampleError as error:
            stack.hooks.close()
            return self._plainly(subject, modules, error)

    def _plainly(self, subject: Any, modules: Sequence[str], reason: SampleError) -> _Worker:
        self.notes = (f"Slower than it could be, since nothing is shared between checkpoints and prompts: {reason}",)
        return _Worker(subject, None, LoraHooks(subject, modules))

    @contextmanager
    def _working(self) -> Iterator[_Worker]:
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def _turns(self, requests: Sequence[Request]) -> list[list[Pack]]:
        """Trees in groups whose shared states fit into memory; a single empty group where nothing is shared."""
        with self._working() as worker:
            if worker.stack is None:
                return [[]]
            node_bytes = worker.stack.bytes_below
        turns: list[list[Pack]] = [[]]
        size = 0
        for each in pack(requests, self._tokens_per_pack):
            if turns[-1] and size + len(each.tokens) * node_bytes > self._shared_bytes:
                turns.append([])
                size = 0
            turns[-1].append(each)
            size += len(each.tokens) * node_bytes
        return turns

    def _share(self, pack: Pack) -> tuple[Tree, Below]:
        import torch

        with self._working() as worker, torch.inference_mode():
            if worker.stack is None:
                raise AssertionError("trees are made for stacks only")
            tree = Tree(pack, worker.stack)
            return tree, worker.stack.below(tree.layout)

    def _score_one(
        self, step: int, requests: Sequence[Request], shared: Sequence[tuple[Tree, Below]], prefixes: Sequence[int], law: Law
    ) -> list[tuple[npt.NDArray[np.int64], Scores]]:
        """Scores of some requests at one checkpoint, with the rows they belong to."""
        import torch

        with self._working() as worker, torch.inference_mode():
            worker.hooks.use(self.adapter(step))
            if worker.stack is None:
                parts = [(np.arange(len(requests)), plain_log_likelihoods(worker.subject, requests, prefixes, law, self._tokens_per_pack))]
            else:
                parts = [(tree.pack.rows, tree.pack.cumulative(tree.edges(worker.stack, below, law), prefixes)) for tree, below in shared]
        if broken := sum(int(np.isnan(scores).any(axis=1).sum()) for _, scores in parts):
            raise SampleError(f"expected log-probabilities at step {step}, found NaN for {broken} responses: are its weights broken?")
        return parts

    def _draw(self, batch: Sequence[Row], wanted: Sequence[Wanted], law: Law, stop: frozenset[int]) -> list[Drawn]:
        used = sorted({row.adapter for row in batch})
        adapters = [self.adapter(wanted[index].step) for index in used]
        rows = [replace(row, adapter=used.index(row.adapter)) for row in batch]
        with self._working() as worker:
            if worker.stack is not None:
                return draw_rows(worker.stack, rows, adapters, law, stop)
            drawn: list[Drawn] = []
            for index, adapter in enumerate(adapters):
                worker.hooks.use(adapter)
                drawn += draw_rows_plainly(worker.subject, [row for row in rows if row.adapter == index], law, stop)
            return drawn


def _same_weights(subject: Any) -> Any:
    """A copy of the modules that shares all parameters and buffers."""
    return copy.deepcopy(subject, {id(each): each for each in itertools.chain(subject.parameters(), subject.buffers())})
