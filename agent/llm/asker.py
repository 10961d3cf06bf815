"""Puts requests to a provider: many at once, each paid once, what came back kept before anything is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event, Lock
from typing import Any, Protocol

from agent.errors import AgentError, AwaitingError, BudgetError, ProviderError
from agent.llm.protocol import Answer, AnsweredElsewhere, BusyError, LaterError, Provider, RejectedError, Request
from agent.llm.traffic import Line, Traffic

PASSES = 4
"""How often what was not answered is asked again after everything else; each time is two retries of the SDK's own."""
HOPELESS = 10
"""Requests in a row that the provider did not answer after which it counts as failing."""


class RequestStore(Protocol):
    """Where answers are kept (`tracing.judgements.JudgementStore`)."""

    def cached_many(self, keys: Sequence[str]) -> dict[str, str]:
        """The replies that are there, by the request's key."""

    def store_many(self, replies: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Keep replies: key, text and usage of each; all on disk on return."""


@dataclass
class Asker:
    """One role's way to its provider.

    Attributes:
        provider: Who is asked.
        role: "proposer", "judge", ...; stands beside every answer in the store, for the ledger.
        in_flight: Most requests at a time, of all parallel branches of the loop together.
        pause: Seconds before unanswered requests are asked again; doubles each time.
        store: Where answers are kept; None before `keep_in`: nothing is kept.
        discovery: Name of the discovery that pays.
        purpose: What for, where it is not the discovery itself ("null runs"); stands beside the role in the ledger.
        before: Called before each request: whether it may be made now, or has to wait for those on their way; raises BudgetError when
            it must not be made at all.
        after: Called after each request with its answer, or None when there is none.
    """

    provider: Provider
    role: str
    in_flight: int = 16
    pause: float = 1.0
    store: RequestStore | None = None
    discovery: str = ""
    purpose: str = ""
    before: Callable[[Asker, Request], bool] = field(default=lambda asker, request: True)
    after: Callable[[Asker, Request, Answer | None], None] = field(default=lambda asker, request, answer: None)
    _stopping: Event = field(default_factory=Event)
    _fault: AgentError | None = None
    _unanswered: int = 0
    _alone: Lock = field(default_factory=Lock)

    @property
    def at_once(self) -> bool:
        """Whether answers come while one waits, so that what is asked next may depend on them."""
        return not isinstance(self.provider, AnsweredElsewhere)

    @cached_property
    def _traffic(self) -> Traffic:
        return Traffic(self.provider)

    @cached_property
    def _keeper(self) -> _Keeper:
        return _Keeper()

    def stop(self) -> None:
        """Make no further request; those on their way are waited for and kept."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and wait until everything on its way is kept."""
        self.stop()
        self._traffic.close()
        with self._alone:
            pass

    def ask(self, requests: Sequence[Request], **about: Any) -> list[Answer | None]:
        """The answers in the order of the requests; None for one the provider rejects.

        Equal requests are made once, also those of parallel branches of the loop.

        Args:
            requests: What is asked.
            about: What the ledger says of them (round, parameter).

        Raises:
            ProviderError: The provider fails; everything answered is kept, and asking again goes on from there.
            BudgetError: The next request would spend more than was allowed.
            AwaitingError: Requests are written down and answered elsewhere.
        """
        if self._fault is not None:
            raise self._fault  # another branch met it: nothing more is asked
        keys = [request.key(self.provider.id) for request in requests]
        kept = {} if self.store is None else self.store.cached_many(list(dict.fromkeys(keys)))
        answers: dict[str, Answer | None] = {key: Answer.from_json(text) for key, text in kept.items()}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        if missing:
            try:
                self._put(_Batch(self, answers, about, missing))
            except AwaitingError:
                raise  # other branches have requests to write down too
            except AgentError as error:
                self._fault = error
                raise
        return [answers[key] for key in keys]

    def _put(self, batch: _Batch) -> None:
        if self.at_once:
            self._traffic.run(batch.run, self.in_flight)
            return
        with self._alone:  # what is asked is written down when the session ends
            asyncio.run(_in_own_session(self.provider, batch, self.in_flight))


async def _in_own_session(provider: Provider, batch: _Batch, in_flight: int) -> None:
    async with provider.session() as ask:
        # no request goes first here: they keep their order, so that a limit counts what was written down before what is new
        await batch.run(Line(ask, asyncio.Semaphore(in_flight), proven=True))


@dataclass
class _Batch:
    """One batch on its way."""

    asker: Asker
    answers: dict[str, Answer | None]
    about: dict[str, Any]
    requests: dict[str, Request]
    fault: AgentError | None = None
    busy: dict[str, Request] = field(default_factory=dict)
    later: dict[str, Request] = field(default_factory=dict)

    async def run(self, line: Line) -> None:
        """Ask until everything is answered, or say why it is not."""
        try:
            await self._ask_all(line)
        except BudgetError:
            if not self.later:
                raise
        finally:
            for request in self.later.values():
                self.asker.after(self.asker, request, None)
        if self.later:
            raise AwaitingError(f"{self.asker.provider.id}: {len(self.later)} requests wait for answers; {_RESUME}")

    async def _ask_all(self, line: Line) -> None:
        waiting = self.requests
        for turn in range(PASSES):
            self.busy = {}
            queue = iter(waiting.items())
            # more than may be in flight: while answers are put on disk, the next requests are on their way
            workers = min(4 * self.asker.in_flight, len(waiting))
            await asyncio.gather(*(self._work(line, queue) for _ in range(workers)))
            if self.fault is not None:
                raise self.fault
            if not self.busy:
                return
            if turn + 1 < PASSES:
                await asyncio.sleep(self.asker.pause * 2**turn)
            waiting = self.busy
        raise ProviderError(f"{self.asker.provider.id}: {len(waiting)} requests were not answered in {PASSES} attempts; {_RESUME}")

    def _end(self, error: AgentError) -> None:
        """Nothing more is asked, here and in parallel branches."""
        self.fault = self.fault or error
        if self.asker.at_once:
            self.asker._fault = self.asker._fault or error

    def _ended(self) -> bool:
        if self.asker._stopping.is_set():
            self.fault = self.fault or ProviderError(f"{self.asker.provider.id}: stopped; {_RESUME}")
        self.fault = self.fault or self.asker._fault
        return self.fault is not None

    async def _work(self, line: Line, queue: Iterator[tuple[str, Request]]) -> None:
        while not self._ended():
            key, request = next(queue, ("", None))
            if request is None:
                return
            await self._one(line, key, request)

    async def _one(self, line: Line, key: str, request: Request) -> None:
        """One request, unless a parallel branch makes or made the same one."""
        if key in line.asked:
            answer = await line.asked[key]
            if answer is None:
                self.busy[key] = request  # not answered, or rejected: this branch will see for itself
            else:
                self.answers[key] = answer
            return
        line.asked[key] = asyncio.get_running_loop().create_future()
        try:
            await self._in_turn(line, key, request)
        finally:
            answer = self.answers.get(key)
            line.asked[key].set_result(answer)
            if answer is None:
                del line.asked[key]

    async def _in_turn(self, line: Line, key: str, request: Request) -> None:
        # the first request goes alone: a wrong key or name costs one call, and what a server lacks is learnt once
        if not line.proven:
            async with line.first:
                if not line.proven:
                    await self._keep(key, await self._put(line, key, request))
                    line.proven = True
                    return
        async with line.slots:
            await line.leave()
            answer = await self._put(line, key, request)
        await self._keep(key, answer)

    async def _may(self, request: Request) -> bool:
        """Whether the budget allows it, once those on their way have shown what they cost."""
        try:
            while not self._ended():
                if self.asker.before(self.asker, request):
                    return True
                if self.later:  # what they hold is not given back before they are answered elsewhere
                    raise BudgetError("what is written down may use up the budget")
                await asyncio.sleep(0.02)
        except BudgetError as error:
            self._end(error)
        return False

    async def _put(self, line: Line, key: str, request: Request) -> Answer | None:
        asker = self.asker
        answer: Answer | None = None
        if not await self._may(request):
            return None
        try:
            answer = await line.ask(request)
        except BusyError as error:
            self.busy[key] = request
            asker._unanswered += 1
            if asker._unanswered >= HOPELESS:
                self._end(ProviderError(f"{error}; {_RESUME}"))
        except RejectedError:
            self.answers[key] = None
        except LaterError:
            self.later[key] = request  # holds its call and its money until all are written down
        except ProviderError as error:
            self._end(error)
        finally:
            if key not in self.later:
                asker.after(asker, request, answer)
        if answer is not None:
            asker._unanswered = 0
        return answer

    async def _keep(self, key: str, answer: Answer | None) -> None:
        """On disk first: what is paid for must survive whatever happens next."""
        if answer is None:
            return
        if self.asker.store is not None:
            usage = {
                "provider": self.asker.provider.id,
                "role": ", ".join(filter(None, (self.asker.role, self.asker.purpose))),
                "discovery": self.asker.discovery,
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "cached_tokens": answer.cached_tokens,
                **self.about,
            }
            await self.asker._keeper.keep(self.asker.store, (key, answer.as_json(), usage))
        self.answers[key] = answer


Reply = tuple[str, str, Mapping[str, Any]]


class _Keeper:
    """Writes answers that come at the same time together: one flush of the disk for all of them."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Reply, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, store: RequestStore, reply: Reply) -> None:
        """Come back when the reply is on disk."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((reply, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(store))
        await done

    async def _write(self, store: RequestStore) -> None:
        while self._waiting:
            now, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(store.store_many, [reply for reply, _ in now])
            except Exception as error:
                for _, done in now:
                    done.set_exception(error)
            else:
                for _, done in now:
                    done.set_result(None)
        self._writing = None


_RESUME = "what was answered is kept, run the same command to go on"
