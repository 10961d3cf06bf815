"""Requests written to files, answered elsewhere, read back: clusters without internet, providers' batch APIs, other programs, people.

batch:DIR                   OpenAI's batch format, the LLM's name left to whoever answers
batch:DIR@openai:NAME       OpenAI's batch format (also `vllm run-batch`)
batch:DIR@anthropic:NAME    Anthropic's message batches
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from agent.errors import ConfigError, ProviderError
from agent.llm import chat_wire, messages_wire
from agent.llm.batch_files import BatchFiles, next_path, write_requests
from agent.llm.openai_provider import WAYS, Way
from agent.llm.protocol import Answer, Ask, LaterError, RejectedError, Request

ANY = "any"
"""The LLM's name in requests where none was given."""
MOST = 3
"""How often a request is put that comes back without an answer."""


@dataclass
class BatchProvider:
    """An LLM that answers by files.

    A request is written once and waited for; what failed is written again (at most three times), what was answered never. What a first
    batch is rejected for as a whole (log-probabilities, schema) the next one does without.

    Attributes:
        folder: Where requests are written and answers found.
        kind: Whose batch format.
        name: The LLM, as whoever answers lists it; empty when it is theirs to choose.
        role: Stands in the files' names.
        timeout: Unused; of the protocol.
    """

    folder: Path
    kind: Literal["openai", "anthropic"] = "openai"
    name: str = ""
    role: str = "judge"
    timeout: float = 120.0
    _new: dict[str, dict[str, Any]] = field(default_factory=dict)
    _path: Path | None = None
    _waiting: set[str] = field(default_factory=set)
    _state: _State = field(default_factory=lambda: _State.of(BatchFiles(), "openai"))

    @property
    def id(self) -> str:
        """`batch:openai:NAME`, or `batch:FOLDER` without a name; where the folder lies makes no difference to a label."""
        return f"batch:{self.kind}:{self.name}" if self.name else f"batch:{self.folder.resolve().name}"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """The folder's answers; what is asked and not answered there is written when the session ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"batch:{self.folder}: expected a folder to write requests to ({error.strerror})") from None
        with FileLock(self.folder / ".batch.lock"):
            files = await asyncio.to_thread(BatchFiles.read, self.folder)
            self._state = _State.of(files, self.kind)
            before = len(self._new)

            async def ask(request: Request) -> Answer:
                return self._look_up(request, self._state)

            try:
                yield ask
            finally:
                if len(self._new) > before:
                    self._path = self._path or next_path(self.folder, self.role)
                    await asyncio.to_thread(write_requests, self._path, self._new.values())

    def _look_up(self, request: Request, state: _State) -> Answer:
        key = request.key(self.id)
        row = state.files.rows.get(key)
        if row is not None and row.answer is not None:
            return row.answer
        if row is not None:
            if row.too_long or (row.fate == "rejected" and state.answered):
                raise RejectedError(f"{self.id}: {row.reason}")
            if row.fate == "rejected" and state.way is None and not state.open:
                raise ProviderError(f"{self.id}: all requests were rejected ({row.reason})")
            if row.fate == "failed" and state.files.unanswered[key] >= MOST:
                raise RejectedError(f"{self.id}: put {MOST} times without an answer ({row.reason})")
        self._waiting.add(key)
        undecided = (
            row is not None and row.fate == "rejected" and state.open
        )  # others may be answered yet, and then this one stays rejected
        if key not in self._new and not state.files.is_open(key) and not undecided:
            self._new[key] = self._line(key, request, state.way)
        raise LaterError(f"{self.id}: waits for its answer")

    def _line(self, key: str, request: Request, way: Way | None) -> dict[str, Any]:
        if self.kind == "anthropic":
            return {"custom_id": key, "params": messages_wire.body(request, self.name)}
        way = way or WAYS[0]
        body = chat_wire.body(request, self.name or ANY, way.form, way.logprobs, "max_completion_tokens")
        return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}

    def waiting(self) -> str:
        """What is waited for and what to do, in one line; empty when nothing is."""
        if not self._waiting:
            return ""
        new = f", {len(self._new):,} of them new in {self._path}" if self._path else ""
        line = f"batch:{self.folder}: {len(self._waiting):,} requests wait for answers{new}; put answers there as .jsonl files"
        return "; ".join([line, *self.remarks()])

    def remarks(self) -> list[str]:
        """What was wrong with the answers so far."""
        files, out = self._state.files, []
        if files.faults:
            out.append(f"{len(files.faults):,} line(s) could not be read, the first {files.faults[0]}")
        if files.strangers:
            out.append(f"{files.strangers:,} answer(s) to nothing that was asked here")
        if files.doubles:
            out.append(f"{files.doubles:,} answer(s) to what was answered already, left aside")
        if files.copies:
            out.append(f"{len(files.copies):,} file(s) byte for byte like an earlier one, left aside, the first {files.copies[0]}")
        return out


@dataclass(frozen=True)
class _State:
    """What the answers so far say about the requests to come.

    Attributes:
        files: The folder's content.
        answered: Some request was answered, so that a rejected one is at fault itself.
        open: Some request is still to be answered.
        way: How requests are put: as those that were answered, or the next way when all were rejected; None: there is none.
    """

    files: BatchFiles
    answered: bool
    open: bool
    way: Way | None

    @classmethod
    def of(cls, files: BatchFiles, kind: str) -> _State:
        rows = files.rows.items()
        answered = {key for key, row in rows if row.fate == "answered"}
        waiting = any(files.is_open(key) for key in files.written if key not in answered)
        way = None
        if kind == "openai":
            rejected = [_place(files.bodies[key]) for key, row in rows if row.fate == "rejected" and not row.too_long]
            place = max((_place(files.bodies[key]) for key in answered), default=max(rejected) + 1 if rejected else 0)
            way = WAYS[place] if place < len(WAYS) else None
        return cls(files, bool(answered), waiting, way)


def _place(body: Mapping[str, Any]) -> int:
    """Which of `WAYS` a request was put."""
    form = (body.get("response_format") or {}).get("type", "text")
    return WAYS.index(Way(False, form, bool(body.get("logprobs"))))


def make_batch(rest: str, option: str) -> BatchProvider:
    """From what stands behind `batch:`.

    Raises:
        ConfigError: No folder, or no such format.
    """
    folder, at, llm = rest.rpartition("@")
    kind, _, name = llm.partition(":")
    if not at:
        folder, kind, name = rest, "openai", ""
    if not folder or kind not in ("openai", "anthropic") or (at and not name):
        raise ConfigError(f"{option} batch:{rest}: expected batch:DIR, batch:DIR@openai:NAME or batch:DIR@anthropic:NAME")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ConfigError(f"{option} batch:{rest}: expected a folder, found a file")
    role = option.removeprefix("--")
    return BatchProvider(Path(folder), "anthropic" if kind == "anthropic" else "openai", name, role)
