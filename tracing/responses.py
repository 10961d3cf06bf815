"""Responses as columns: who was asked what, what came back, and where along the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracing.errors import ResponsesError
from tracing.whole_file import whole_file

_TEXT_COLUMNS = ("response_id", "prompt_key", "prompt_id", "system", "prompt", "completion")
_SCORE_PREFIX = "score:"
_SETTINGS = b"order_parameter_run_settings"


def text_hash(*parts: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `parts` (as a JSON list, so that their borders count)."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Responses:
    """n sampled responses, one per position of every column, in the order of the file or of the steps.

    Attributes:
        response_id: Unique name of each response.
        prompt_key: Identity of the prompt in all statistics: hash of (system, prompt), or of (system, prompt, given id).
        prompt_id: The id a user gave, or the hash.
        system: System text, empty when there was none.
        prompt: What was put to the subject.
        completion: What came back; the empty string is a response too.
        step: (n,) int64 optimizer step at which it was sampled (0: base), or None when only sides are known.
        side: Name of the set each belongs to, or None when only steps are known.
        scores: Numeric columns a user brought, each (n,) float64; NaN is missing.
    """

    response_id: tuple[str, ...]
    prompt_key: tuple[str, ...]
    prompt_id: tuple[str, ...]
    system: tuple[str, ...]
    prompt: tuple[str, ...]
    completion: tuple[str, ...]
    step: npt.NDArray[np.int64] | None = None
    side: tuple[str, ...] | None = None
    scores: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all columns have one length and that no response id occurs twice.

        Raises:
            ResponsesError: They do not, or one does.
        """
        lengths = {name: len(getattr(self, name)) for name in _TEXT_COLUMNS}
        lengths |= {f"scores[{name!r}]": len(column) for name, column in self.scores.items()}
        lengths |= {} if self.step is None else {"step": len(self.step)}
        lengths |= {} if self.side is None else {"side": len(self.side)}
        if len(set(lengths.values())) > 1:
            raise ResponsesError(f"expected columns of one length, found {lengths}")
        if (twice := first_duplicate(self.response_id)) is not None:
            raise ResponsesError(f"expected unique response ids, found {twice!r} twice")

    @classmethod
    def of(
        cls,
        prompt: Sequence[str],
        completion: Sequence[str],
        *,
        system: Sequence[str] | None = None,
        prompt_id: Sequence[str] | None = None,
        response_id: Sequence[str] | None = None,
        step: int | Sequence[int] | npt.NDArray[np.int64] | None = None,
        side: Sequence[str] | None = None,
        scores: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Responses:
        """Build the columns from what is known; ids and keys that are not given are derived.

        Args:
            prompt: n prompts.
            completion: n responses to them.
            system: n system texts; none at all when None.
            prompt_id: n ids; when given they are part of the prompt's identity, so one text under two ids is two prompts.
            response_id: n unique ids; `step-000120/17` (or `17` without steps) when None.
            step: One step for all, or n steps.
            side: n names of sets.
            scores: Numeric columns, NaN for missing.

        Raises:
            ResponsesError: The columns differ in length, or an id occurs twice.
        """
        n = len(prompt)
        systems = ("",) * n if system is None else tuple(system)
        steps = None if step is None else np.broadcast_to(np.asarray(step, dtype=np.int64), (n,)).copy()
        if prompt_id is None:
            keys = tuple(text_hash(*pair) for pair in zip(systems, prompt, strict=True))
        else:
            keys = tuple(text_hash(*triple) for triple in zip(systems, prompt, prompt_id, strict=True))
        if response_id is None:
            response_id = [str(i) if steps is None else f"{step_name(steps[i])}/{i}" for i in range(n)]
        return cls(
            response_id=tuple(response_id),
            prompt_key=keys,
            prompt_id=keys if prompt_id is None else tuple(prompt_id),
            system=systems,
            prompt=tuple(prompt),
            completion=tuple(completion),
            step=steps,
            side=None if side is None else tuple(side),
            scores={name: np.asarray(column, dtype=np.float64) for name, column in (scores or {}).items()},
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Responses]) -> Responses:
        """All of `parts` one after the other. A column that not every part has is an error for steps and sides; a missing score is NaN.

        Raises:
            ResponsesError: Some parts know steps (or sides) and others do not, or ids collide.
        """
        texts = {name: tuple(value for part in parts for value in getattr(part, name)) for name in _TEXT_COLUMNS}
        steps = [part.step for part in parts if part.step is not None]
        sides = [part.side for part in parts if part.side is not None]
        if len(steps) not in (0, len(parts)) or len(sides) not in (0, len(parts)):
            raise ResponsesError("expected every part to know its steps (or sides) or none, found some that do")
        names = dict.fromkeys(name for part in parts for name in part.scores)
        scores = {name: np.concatenate([part.scores.get(name, np.full(len(part), np.nan)) for part in parts]) for name in names}
        step = np.concatenate(steps) if steps else None
        side = tuple(value for column in sides for value in column) if sides else None
        return cls(**texts, step=step, side=side, scores=scores)

    @cached_property
    def text_key(self) -> tuple[str, ...]:
        """Hash of (system, prompt, completion): equal for equal texts, so that each distinct response is judged and scored once."""
        return tuple(text_hash(*parts) for parts in zip(self.system, self.prompt, self.completion, strict=True))

    def take(self, index: npt.ArrayLike) -> Responses:
        """Rows `index` (integers, or an (n,) boolean mask), in that order; one row may be taken only once."""
        rows = np.arange(len(self))[np.asarray(index)] if np.size(index) else np.arange(0)
        texts = {name: tuple(getattr(self, name)[i] for i in rows) for name in _TEXT_COLUMNS}
        return Responses(
            **texts,
            step=None if self.step is None else self.step[rows],
            side=None if self.side is None else tuple(self.side[i] for i in rows),
            scores={name: column[rows] for name, column in self.scores.items()},
        )

    def __len__(self) -> int:
        return len(self.response_id)


def step_name(step: int | np.integer[Any]) -> str:
    """The name of a checkpoint in file names and response ids: `step-000120`."""
    return f"step-{int(step):06d}"


def first_duplicate(values: Iterable[str]) -> str | None:
    """The first value that occurs a second time, or None."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def write_parquet(path: Path, responses: Responses, *, settings: str = "") -> None:
    """Write `responses` to `path`, whole or not at all (see `tracing.whole_file`).

    Args:
        path: Destination.
        responses: What to write; every column comes back bit for bit.
        settings: Digest of the settings it was recorded under, kept in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(responses, name), type=pa.string()) for name in _TEXT_COLUMNS}
    if responses.step is not None:
        columns["step"] = pa.array(responses.step, type=pa.int64())
    if responses.side is not None:
        columns["side"] = pa.array(responses.side, type=pa.string())
    columns |= {_SCORE_PREFIX + name: pa.array(column, type=pa.float64()) for name, column in responses.scores.items()}
    table = pa.table(columns).replace_schema_metadata({_SETTINGS: settings.encode()})
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_parquet(path: Path, *, settings: str | None = None) -> Responses:
    """Read what `write_parquet` wrote.

    Args:
        path: The file.
        settings: When given, the digest that the file must carry.

    Raises:
        ResponsesError: The file is damaged, lacks a column, or was recorded under other settings.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ResponsesError(f"{path}: expected a Parquet file of responses, found a damaged one ({one_line(error)})") from error
    if missing := [name for name in _TEXT_COLUMNS if name not in table.column_names]:
        raise ResponsesError(f"{path}: expected the columns {', '.join(missing)}, found {', '.join(table.column_names)}")
    found = (table.schema.metadata or {}).get(_SETTINGS, b"").decode()
    if settings is not None and found != settings:
        raise ResponsesError(
            f"{path}: expected responses recorded under the settings {settings[:12]} of this run, found {found[:12] or 'none'}; "
            "runs with other settings belong in another run directory"
        )
    texts = {name: tuple(table.column(name).to_pylist()) for name in _TEXT_COLUMNS}
    scores = [name for name in table.column_names if name.startswith(_SCORE_PREFIX)]
    return Responses(
        **texts,
        step=table.column("step").to_numpy() if "step" in table.column_names else None,
        side=tuple(table.column("side").to_pylist()) if "side" in table.column_names else None,
        scores={name.removeprefix(_SCORE_PREFIX): table.column(name).to_numpy() for name in scores},
    )


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, for use inside ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
