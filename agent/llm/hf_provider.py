"""A transformers model in this process: levels are scored label by label, everything else is continued token by token."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError, ProviderError
from agent.llm.protocol import Alternative, Answer, Ask, RejectedError, Request
from probes.errors import SampleError

if TYPE_CHECKING:
    from probes.label_scores import Reader

BEGUN, END = '{"level": ', ","
QUOTE_TOKENS = 40
"""Room for the quote; its check against the response drops what was cut short."""
TOGETHER = 16
"""Requests that are run at a time."""
SAMPLED = 1 << 20
"""Bytes at either end of a file of weights that its name is made from."""


@dataclass
class HfProvider:
    """An LLM from a folder, or by a name that the hub's cache holds.

    Attributes:
        name: Folder or name.
        timeout: Unused; of the protocol.
        deterministic: The same request always has the same answer: a second reading has to be in other words.
    """

    name: str
    timeout: float = 120.0
    deterministic: bool = True
    _queue: list[tuple[Request, asyncio.Future[Answer]]] = field(default_factory=list)
    _running: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        folder = Path(self.name)
        if folder.exists() and not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ConfigError(f"hf:{self.name}: expected a folder with a config.json and safetensors, found none")

    @property
    def id(self) -> str:
        """`hf:NAME`; for a folder its last part and a digest of its weights, wherever it lies."""
        folder = Path(self.name)
        return f"hf:{folder.resolve().name}@{_digest(folder)}" if folder.exists() else f"hf:{self.name}"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """The loaded model; loaded once per process, whatever the roles it has."""
        await asyncio.to_thread(self._reader)
        yield self._ask

    def _reader(self) -> Reader:
        try:
            return _load(self.name)
        except (SampleError, OSError, RuntimeError) as error:
            raise ProviderError(f"hf:{self.name}: {' '.join(str(error).split())[:300]}") from None

    async def _ask(self, request: Request) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((request, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Answer what waits, many at a time: requests of one kind and of about one length together."""
        while self._queue:
            await asyncio.sleep(0)  # whoever asks at the same time is in the queue then
            self._queue.sort(key=lambda waiting: (waiting[0].labels, waiting[0].n_bytes))
            kind = self._queue[0][0].labels
            now = [waiting for waiting in self._queue[:TOGETHER] if waiting[0].labels == kind]
            del self._queue[: len(now)]
            try:
                answers = await asyncio.to_thread(self._answers, [request for request, _ in now])
            except Exception as error:
                answers = [error] * len(now)
            for (_, future), answer in zip(now, answers, strict=True):
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        self._running = None

    def _answers(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        try:
            return list(self._levels(requests) if requests[0].labels else self._texts(requests))
        except SampleError as error:
            if len(requests) > 1:  # one that is too long does not keep the others from their answers
                return [answer for request in requests for answer in self._answers([request])]
            return [RejectedError(f"hf:{self.name}: {error}")]
        except (RuntimeError, ValueError) as error:  # out of memory, a model that lacks what is needed
            raise ProviderError(f"hf:{self.name}: {' '.join(str(error).split())[:300]}") from None

    def _levels(self, requests: Sequence[Request]) -> list[Answer]:
        from probes.label_scores import continued, label_log_probabilities

        reader, labels = self._reader(), requests[0].labels
        asked = [_messages(request) for request in requests]
        scores = label_log_probabilities(reader, asked, BEGUN, labels, END)
        best = [labels[k] for k in scores.argmax(axis=1)]
        quotes = continued(reader, asked, [f'{BEGUN}{label}{END} "quote": "' for label in best], QUOTE_TOKENS)
        out = []
        for messages, row, label, (text, _, n) in zip(asked, scores.tolist(), best, quotes, strict=True):
            told = label != "null"
            reply = {"level": json.loads(label), "quote": _quote(text) if told else "", "cannot_tell": not told}
            around = (Alternative(BEGUN, {}), Alternative(label, dict(zip(labels, row, strict=True)))) if told else ()
            out.append(Answer(json.dumps(reply, ensure_ascii=False), "end", len(reader.encode(messages, BEGUN)), n + 1, 0, around))
        return out

    def _texts(self, requests: Sequence[Request]) -> list[Answer]:
        from probes.label_scores import continued

        reader, out = self._reader(), []
        for request in requests:
            messages = _messages(request)
            ((text, cut, n),) = continued(reader, [messages], ["{"], request.max_tokens)
            out.append(Answer("{" + text, "truncated" if cut else "end", len(reader.encode(messages, "{")), n))
        return out


@cache
def _load(name: str) -> Reader:
    from probes.label_scores import Reader

    return Reader.load(name)


@cache
def _digest(folder: Path) -> str:
    """Of configuration and weights: sizes, and both ends of every file of weights (hashing them whole takes minutes)."""
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json"), *folder.glob("tokenizer.json")]):
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            found.update(file.read(SAMPLED))
            file.seek(max(size - SAMPLED, 0))
            found.update(file.read())
    return found.hexdigest()[:8]


def _messages(request: Request) -> list[tuple[str, str]]:
    roles = ("user", "assistant")
    return [("system", request.system), *((roles[k % 2], text) for k, text in enumerate(request.turns))]


def _quote(text: str) -> str:
    """A JSON string as far as it goes: up to the first quotation mark that ends it."""
    place = 0
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    try:
        return str(json.loads(f'"{text[:place]}"', strict=False))
    except ValueError:
        return ""
