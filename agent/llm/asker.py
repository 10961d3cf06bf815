"""Puts requests to a provider: many at once, each paid once, what came back kept before anything is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Protocol

from agent.errors import AgentError, AwaitingError, BudgetError, ProviderError
from agent.llm.protocol import Answer, AnsweredElsewhere, Ask, BusyError, LaterError, Provider, RejectedError, Request

PASSES = 4
"""How often what was not answered is asked again after everything else; each time is two retries of the SDK's own."""
HOPELESS = 10
"""Requests in a row that the provider did not answer after which it counts as failing."""


class RequestStore(Protocol):
    """Where answers are kept (`tracing.judgements.JudgementStore`)."""

    def cached(self, key: str) -> str | None:
        """The reply to a request, or None."""

    def store(self, key: str, reply: str, usage: Mapping[str, Any]) -> None:
        """Keep a reply."""


@dataclass
class Asker:
    """One role's way to its provider.

    Attributes:
        provider: Who is asked.
        role: "proposer", "judge", ...; stands beside every answer in the store, for the ledger.
        in_flight: Most requests at a time.
        pause: Seconds before unanswered requests are asked again; doubles each time.
        store: Where answers are kept; None before `keep_in`: nothing is kept.
        discovery: Name of the discovery that pays.
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
    before: Callable[[Asker, Request], bool] = field(default=lambda asker, request: True)
    after: Callable[[Asker, Request, Answer | None], None] = field(default=lambda asker, request, answer: None)
    _lock: Lock = field(default_factory=Lock)
    _stopping: Event = field(default_factory=Event)
    _fault: AgentError | None = None

    @property
    def at_once(self) -> bool:
        """Whether answers come while one waits, so that what is asked next may depend on them."""
        return not isinstance(self.provider, AnsweredElsewhere)

    def stop(self) -> None:
        """Make no further request; those on their way are waited for and kept."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and wait until everything on its way is kept."""
        self.stop()
        with self._lock:
            pass

    def ask(self, requests: Sequence[Request], **about: Any) -> list[Answer | None]:
        """The answers in the order of the requests; None for one the provider rejects.

        Equal requests are made once. One batch at a time: parallel branches of the loop share the limit of requests in flight.

        Args:
            requests: What is asked.
            about: What the ledger says of them (round, parameter).

        Raises:
            ProviderError: The provider fails; everything answered is kept, and asking again goes on from there.
            BudgetError: The next request would spend more than was allowed.
            AwaitingError: Requests are written down and answered elsewhere.
        """
        keys = [request.key(self.provider.id) for request in requests]
        answers: dict[str, Answer | None] = {}
        with self._lock:
            if self._fault is not None:
                raise self._fault  # another branch met it: nothing more is asked
            for key in dict.fromkeys(keys):
                found = None if self.store is None else self.store.cached(key)
                if found is not None:
                    answers[key] = Answer.from_json(found)
            missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
            if missing:
                try:
                    asyncio.run(_Batch(self, answers, about).run(missing))
                except AwaitingError:
                    raise  # other branches have requests to write down too
                except AgentError as error:
                    self._fault = error
                    raise
        return [answers[key] for key in keys]


@dataclass
class _Batch:
    """One batch on its way."""

    asker: Asker
    answers: dict[str, Answer | None]
    about: dict[str, Any]
    fault: AgentError | None = None
    unanswered: int = 0
    busy: dict[str, Request] = field(default_factory=dict)
    later: dict[str, Request] = field(default_factory=dict)

    async def run(self, requests: dict[str, Request]) -> None:
        """Ask until everything is answered, or say why it is not."""
        try:
            await self._ask_all(requests)
        except BudgetError:
            if not self.later:
                raise
        finally:
            for request in self.later.values():
                self.asker.after(self.asker, request, None)
        if self.later:
            raise AwaitingError(f"{self.asker.provider.id}: {len(self.later)} requests wait for answers; {_RESUME}")

    async def _ask_all(self, requests: dict[str, Request]) -> None:
        waiting = requests
        async with self.asker.provider.session() as ask:
            for turn in range(PASSES):
                self.busy = {}
                await self._once(ask, waiting)
                if self.fault is not None:
                    raise self.fault
                if not self.busy:
                    return
                if turn + 1 < PASSES:
                    await asyncio.sleep(self.asker.pause * 2**turn)
                waiting = self.busy
        raise ProviderError(f"{self.asker.provider.id}: {len(waiting)} requests were not answered in {PASSES} attempts; {_RESUME}")

    async def _once(self, ask: Ask, requests: dict[str, Request]) -> None:
        queue = iter(requests.items())
        # the first request goes alone: a wrong key or name costs one call, and what a server lacks is learnt once
        await self._work(ask, queue, most=1)
        await asyncio.gather(*(self._work(ask, queue) for _ in range(min(self.asker.in_flight, len(requests)))))

    async def _work(self, ask: Ask, queue: Iterator[tuple[str, Request]], most: int | None = None) -> None:
        while self.fault is None and (most is None or most > 0) and not self.asker._stopping.is_set():
            key, request = next(queue, ("", None))
            if request is None:
                return
            most = None if most is None else most - 1
            await self._one(ask, key, request)
        if self.asker._stopping.is_set() and self.fault is None:
            self.fault = ProviderError(f"{self.asker.provider.id}: stopped; {_RESUME}")

    async def _one(self, ask: Ask, key: str, request: Request) -> None:
        answer: Answer | None = None
        try:
            while not self.asker.before(self.asker, request):
                if self.later:  # what they hold is not given back before they are answered elsewhere
                    raise BudgetError("what is written down may use up the budget")
                await asyncio.sleep(0.02)
        except BudgetError as error:
            self.fault = self.fault or error
            return
        try:
            answer = await ask(request)
        except BusyError as error:
            self.busy[key] = request
            self.unanswered += 1
            if self.unanswered >= HOPELESS:
                self.fault = ProviderError(f"{error}; {_RESUME}")
        except RejectedError:
            self.answers[key] = None
        except LaterError:
            self.later[key] = request  # holds its call and its money until all are written down
        except ProviderError as error:
            self.fault = self.fault or error
        finally:
            if key not in self.later:
                self.asker.after(self.asker, request, answer)
        if answer is not None:
            self.unanswered = 0
            await self._keep(key, answer)

    async def _keep(self, key: str, answer: Answer) -> None:
        """On disk first: what is paid for must survive whatever happens next."""
        if self.asker.store is not None:
            usage = {
                "provider": self.asker.provider.id,
                "role": self.asker.role,
                "discovery": self.asker.discovery,
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "cached_tokens": answer.cached_tokens,
                **self.about,
            }
            await asyncio.to_thread(self.asker.store.store, key, answer.as_json(), usage)
        self.answers[key] = answer


_RESUME = "what was answered is kept, run the same command to go on"
