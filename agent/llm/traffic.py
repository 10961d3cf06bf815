"""Requests of all parallel branches of the loop on one event loop: they share connections and the limit of requests in flight.

The loop runs in a thread of its own for as long as somebody waits for answers, and a moment longer, so that the next batch finds the
connections open.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from agent.llm.protocol import Answer, Ask, Provider

GENTLY = 0.001
"""Seconds between requests, less than an SDK needs for one. Sent at once, their answers would come at once too, and wait for each other."""
LINGER = 0.3
"""Seconds the connections stay open when nobody waits."""


@dataclass
class Line:
    """An open line to the provider.

    Attributes:
        ask: Puts one request.
        slots: As many as requests may be in flight.
        first: Held by the request that goes before all others.
        asked: Requests on their way or answered, by key.
        proven: Whether one of them came back.
        apart: Least seconds between two requests.
    """

    ask: Ask
    slots: asyncio.Semaphore
    first: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: dict[str, asyncio.Future[Answer | None]] = field(default_factory=dict)
    proven: bool = False
    apart: float = 0.0
    _free_at: float = 0.0

    async def leave(self) -> None:
        """Wait for one's turn."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at + self.apart)
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


Job = Callable[[Line], Awaitable[None]]


class Traffic:
    """The way to one provider.

    Args:
        provider: Who is asked.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lock = threading.Lock()
        self._waiting: list[tuple[Job, Future[None]]] = []
        self._thread: threading.Thread | None = None
        self._open = self._closing = self._proven = False
        self._wake: Callable[[], Any] = lambda: None

    def run(self, job: Job, in_flight: int) -> None:
        """Do a job on the line and come back when it is done; jobs of several threads run at the same time.

        Args:
            job: What is to be done.
            in_flight: Most requests at a time, of all jobs together; counts when the line is opened.

        Raises:
            Exception: What the job raises, or opening the line did.
        """
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((job, future))
            if not self._open:
                self._open = True
                self._wake = lambda: None
                self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(in_flight)), name="traffic")
                self._thread.start()
            else:
                self._wake()
        future.result()

    def close(self) -> None:
        """Wait until every job is done and the line is closed."""
        with self._lock:
            self._closing = True
            self._wake()
        if self._thread is not None:
            self._thread.join()

    async def _serve(self, in_flight: int) -> None:
        awake, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._lock:
            self._wake = lambda: loop.call_soon_threadsafe(awake.set)
        tasks: set[asyncio.Task[None]] = set()
        left = False
        try:
            async with self._provider.session() as ask:
                line = Line(ask, asyncio.Semaphore(in_flight), proven=self._proven, apart=GENTLY)
                while True:
                    awake.clear()
                    with self._lock:
                        new, self._waiting = self._waiting, []
                    for job, future in new:
                        task = asyncio.create_task(_settle(job, future, line))
                        tasks.add(task)
                        task.add_done_callback(lambda _: awake.set())
                    tasks = {task for task in tasks if not task.done()}
                    self._proven = line.proven
                    if tasks or (not self._closing and await _soon(awake)):
                        await awake.wait()
                    elif left := self._left():
                        return
        except BaseException as error:
            if left:
                return  # while closing: everybody has their answer, and who came since has a line of their own
            with self._lock:
                self._open, lost, self._waiting, self._wake = False, self._waiting, [], lambda: None
            for _, future in lost:
                future.set_exception(error)

    def _left(self) -> bool:
        """Whether nobody came in the meantime; the next one opens a line of its own."""
        with self._lock:
            self._open = bool(self._waiting)
            if not self._open:
                self._wake = lambda: None
            return not self._open


async def _soon(awake: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(awake.wait(), LINGER)
    except TimeoutError:
        return False
    return True


async def _settle(job: Job, future: Future[None], line: Line) -> None:
    try:
        await job(line)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)
