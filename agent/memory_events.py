"""What happened to an order parameter, as one event, and the one line of JSON that holds it.

A line is the event's JSON object with a head and a tail. The head comes first and has always the same fields, so that ten thousand
lines are sorted by parameter without parsing them: `event`, the content hash that makes a repeated or merged event recognisable;
`at`, when it was written; what it is about. The tail is `sum`, a checksum of everything before it, so that a damaged line is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, get_args

from agent.errors import MemoryStoreError
from agent.records import Estimate, EvidencePair, OrderParameter

EventKind = Literal["proposed", "judged", "accepted", "rejected", "vetoed", "reworded", "transferred", "forgotten"]
Author = Literal["agent", "reviewer"]

LEDGER_FORMAT = "order-parameter-memory"
LEDGER_VERSION = 1
KINDS: frozenset[str] = frozenset(get_args(EventKind))

_SUM_PREFIX = b',"sum":"'
_SUM_LENGTH = 16
_TAIL_LENGTH = len(_SUM_PREFIX) + _SUM_LENGTH + 2
_NAME = rb"[0-9A-Za-z_.-]*"
_HEAD_FIELDS = (b"kind", b"parameter_id", b"wording", b"after", b"successor_id", b"successor_wording")
_HEAD = re.compile(
    rb'\{"v":(\d+),"event":"([0-9a-f]{16})","at":"([0-9T:.+Z-]*)",' + b",".join(b'"%s":"(%s)"' % (key, _NAME) for key in _HEAD_FIELDS)
)


@dataclass(frozen=True)
class Provenance:
    """Where a parameter was seen.

    Attributes:
        run: The run as the user named it (a path).
        run_digest: sha256 of the run's content; the same run has the same digest wherever it lies.
        subject: Name of the subject (the model under study).
        contrast: What was compared, as the report words it.
        step: Optimizer step of the transition or contrast; None when the run has sides only.
        round: Round of the loop (0: before the first, e.g. transferred).
    """

    run: str = ""
    run_digest: str = ""
    subject: str = ""
    contrast: str = ""
    step: int | None = None
    round: int = 0


@dataclass(frozen=True)
class MemoryEvent:
    """One thing that happened to one order parameter.

    Attributes:
        kind: What happened.
        parameter: The order parameter; may be None only when `parameter_id` names one (a tombstone needs no text).
        parameter_id: `parameter.id`, filled in when left empty.
        by: Who decided: the loop, or a reviewer (whose verdict stands above the loop's).
        provenance: Run, step and subject it happened on.
        judge, proposer: Ids of the providers (`provider:model`).
        judge_template, proposer_template: Hashes of the templates put to them.
        shares: Estimates with their intervals on this run, by name (`share`, `unique`, `change`, `beyond_length`, ...).
        labels: Level per reference response, `text_key -> level`; None: judged, but not read.
        signature: The run's change signature: shift (after minus before) of each baseline measure, by name.
        reason: Why, in words (rejections, vetoes).
        successor: For `reworded`: the parameter that takes this one's place.
        examples: Evidence pairs. Response text: kept only by a memory opened with `examples=True`.
        at: UTC time, ISO 8601 with microseconds; filled in when it is written.
        after: Id of the tombstone this event came after; filled in when it is written.
    """

    kind: EventKind
    parameter: OrderParameter | None = None
    parameter_id: str = ""
    by: Author = "agent"
    provenance: Provenance = Provenance()
    judge: str = ""
    proposer: str = ""
    judge_template: str = ""
    proposer_template: str = ""
    shares: Mapping[str, Estimate] = field(default_factory=dict)
    labels: Mapping[str, int | None] = field(default_factory=dict)
    signature: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    successor: OrderParameter | None = None
    examples: tuple[EvidencePair, ...] = ()
    at: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        """Fill in the id and refuse events that name no parameter."""
        if self.kind not in KINDS:
            raise MemoryStoreError(f"memory event kind {self.kind!r} is not one of {', '.join(sorted(KINDS))}")
        if not self.parameter_id:
            if self.parameter is None:
                raise MemoryStoreError(f"a {self.kind!r} memory event needs an order parameter or a parameter_id; found neither")
            object.__setattr__(self, "parameter_id", self.parameter.id)
        if self.kind == "reworded" and self.successor is None:
            raise MemoryStoreError("a 'reworded' memory event needs a successor: the parameter in its new words")


@dataclass(frozen=True)
class StoredEvent:
    """An event as it stands in a ledger; the head is read at once, the rest when asked for.

    Attributes:
        id: Content hash.
        line: Its bytes, without the line break.
        at, kind, parameter_id, after: As in the event.
        wording: Hash of the parameter's words (see `wording_hash`), empty when the event does not carry them.
        successor_id, successor_wording: The same of the successor.
    """

    id: str
    line: bytes
    at: str
    kind: str
    parameter_id: str
    wording: str
    after: str
    successor_id: str
    successor_wording: str

    @cached_property
    def event(self) -> MemoryEvent:
        """The whole event.

        Raises:
            MemoryStoreError: The line is whole (its checksum fits) but not understood.
        """
        data = {key: value for key, value in json.loads(self.line).items() if key not in _LINE_ONLY}
        try:
            for name in ("parameter", "successor"):
                data[name] = OrderParameter.model_validate(data[name]) if name in data else None
            data["provenance"] = Provenance(**data.get("provenance", {}))
            data["shares"] = {name: Estimate.model_validate(value) for name, value in data.get("shares", {}).items()}
            data["examples"] = tuple(EvidencePair.model_validate(pair) for pair in data.get("examples", ()))
            return MemoryEvent(**data)
        except (TypeError, ValueError) as problem:
            raise MemoryStoreError(f"memory event {self.id} is not understood: {str(problem).splitlines()[0]}") from None


_LINE_ONLY = frozenset({"v", "event", "wording", "successor_id", "successor_wording", "sum"})


def wording_hash(parameter: OrderParameter | None) -> str:
    """Hash of name, definition and question, 16 hex digits; empty for None. It changes when what is embedded changes."""
    if parameter is None:
        return ""
    return hashlib.sha256("\0".join((parameter.name, parameter.definition, parameter.question)).encode()).hexdigest()[:16]


def encode(event: MemoryEvent, *, examples: bool = False) -> StoredEvent:
    """Write an event as one line.

    Args:
        event: The event; an empty `at` becomes the present moment.
        examples: Keep `event.examples` (response text); they are left out otherwise.

    Returns:
        The stored event. Its id is the hash of everything but `at`: the same event has the same id whenever it is written.

    Raises:
        MemoryStoreError: A number is NaN or infinite, or a text is not valid Unicode.
    """
    about = (
        event.kind,
        event.parameter_id,
        wording_hash(event.parameter),
        event.after,
        event.successor.id if event.successor else "",
        wording_hash(event.successor),
    )
    try:
        head = b",".join(b'"%s":"%s"' % (name, value.encode()) for name, value in zip(_HEAD_FIELDS, about, strict=True))
        rest = json.dumps(_rest(event, examples), ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    except ValueError as problem:
        raise MemoryStoreError(f"memory event {event.kind!r} of {event.parameter_id} cannot be written: {problem}") from None
    content = head + (b"," + rest[1:] if rest != b"{}" else b"}")
    event_id = hashlib.sha256(content).hexdigest()[:16]
    at = event.at or now()
    body = b'{"v":%d,"event":"%s","at":"%s",' % (LEDGER_VERSION, event_id.encode(), at.encode()) + content
    if not _HEAD.match(body):
        raise MemoryStoreError(f"memory event of parameter {event.parameter_id!r} at {at!r}: id or time holds signs that none has")
    return StoredEvent(event_id, seal(body), at, *about)


def _rest(event: MemoryEvent, examples: bool) -> dict[str, Any]:
    """What does not stand in the head, as plain JSON data, without what is empty."""
    rest: dict[str, Any] = {} if event.by == "agent" else {"by": event.by}
    for name in ("judge", "proposer", "judge_template", "proposer_template", "reason"):
        if value := getattr(event, name):
            rest[name] = value
    if event.parameter is not None:
        rest["parameter"] = event.parameter.model_dump()
    if event.successor is not None:
        rest["successor"] = event.successor.model_dump()
    if event.provenance != Provenance():
        rest["provenance"] = event.provenance.__dict__
    if event.shares:
        rest["shares"] = {name: value.model_dump() for name, value in event.shares.items()}
    if event.labels:
        rest["labels"] = dict(event.labels)
    if event.signature:
        rest["signature"] = dict(event.signature)
    if event.examples and examples:
        rest["examples"] = [pair.model_dump() for pair in event.examples]
    return rest


def now() -> str:
    """The present moment as events hold it: UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def seal(body: bytes) -> bytes:
    """Add the checksum to a JSON object: `{...}` becomes `{...,"sum":"<16 hex digits>"}`."""
    return body[:-1] + _SUM_PREFIX + _digest(body) + b'"}'


def check_seal(line: bytes) -> None:
    """Compare a line with its checksum.

    Raises:
        ValueError: They do not fit; the message says how.
    """
    tail = line[-_TAIL_LENGTH:]
    if len(line) <= _TAIL_LENGTH or not tail.startswith(_SUM_PREFIX) or not tail.endswith(b'"}'):
        raise ValueError("expected a JSON object that ends in its checksum")
    if _digest(line[:-_TAIL_LENGTH] + b"}") != tail[len(_SUM_PREFIX) : -2]:
        raise ValueError("its checksum does not fit its content")


def decode(line: bytes) -> StoredEvent:
    """Check one line of a ledger and read its head.

    Raises:
        ValueError: The line is damaged or not understood; the message says how.
    """
    check_seal(line)
    found = _HEAD.match(line)
    if found is None:
        raise ValueError("its first fields are not those of a memory event")
    version, event_id, at, *about = (part.decode() for part in found.groups())
    if int(version) != LEDGER_VERSION:
        raise ValueError(f"it has format version {version}, this program reads version {LEDGER_VERSION}")
    if about[0] not in KINDS:
        raise ValueError(f"its kind {about[0]!r} is not known")
    return StoredEvent(event_id, line, at, *about)


def header() -> bytes:
    """The first line of a ledger: format and version, sealed like every other line."""
    return seal(b'{"format":"%s","version":%d}' % (LEDGER_FORMAT.encode(), LEDGER_VERSION))


def read_header(line: bytes) -> tuple[str, int]:
    """Format and version of a ledger's first line.

    Raises:
        ValueError: It is damaged or no header.
    """
    check_seal(line)
    data = json.loads(line)
    if not isinstance(data.get("format"), str) or not isinstance(data.get("version"), int):
        raise ValueError("expected a header with format and version")
    return data["format"], data["version"]


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_SUM_LENGTH].encode()
