"""`findings.json`: the findings for programs, written and read so that the same findings are always the same bytes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.errors import AgentError
from agent.records import FINDINGS_FORMAT, FINDINGS_VERSION, Findings

FILE_NAME = "findings.json"


class FindingsFileError(AgentError, ValueError):
    """A `findings.json` is missing, broken, or not one that this version can read."""


def findings_bytes(findings: Findings) -> bytes:
    """The canonical UTF-8 JSON of `findings`: field order of the schema, two spaces, numbers in full precision.

    Lone surrogates (legal in JSON escapes, not in UTF-8) become U+FFFD, so that every reader can open the file.

    Raises:
        FindingsFileError: a number is NaN or infinite; missing is written as null by whoever builds the findings.
    """
    plain = findings.model_dump(mode="python")
    place = _first_non_finite(plain, "findings")
    if place is not None:
        raise FindingsFileError(f"{place}: expected a finite number or null, found NaN or infinity")
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def parse_findings(data: bytes, source: str = FILE_NAME) -> Findings:
    """Read what `findings_bytes` wrote.

    Raises:
        FindingsFileError: not JSON, a foreign format, a newer version, or a field that does not fit; one line naming `source`.
    """
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise FindingsFileError(f"{source}: expected JSON, found {error}") from error
    if not isinstance(plain, dict) or plain.get("format") != FINDINGS_FORMAT:
        raise FindingsFileError(f'{source}: expected "format": "{FINDINGS_FORMAT}", found another kind of file')
    version = plain.get("version")
    if version != FINDINGS_VERSION:
        raise FindingsFileError(
            f"{source}: expected findings version {FINDINGS_VERSION}, found {version!r}; use the discover that wrote it"
        )
    try:
        return Findings.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FindingsFileError(f"{source}: {where}: {first['msg']} ({error.error_count()} problems in all)") from error


def read_findings(folder: Path) -> Findings:
    """Read `findings.json` of a run directory.

    Raises:
        FindingsFileError: there is none, or it cannot be read (see `parse_findings`).
    """
    path = folder / FILE_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror
        raise FindingsFileError(
            f"{path}: expected the findings of a finished run, found none ({reason}); run discover --run first"
        ) from error
    return parse_findings(data, str(path))


def _first_non_finite(value: Any, place: str) -> str | None:
    """Dotted place of the first NaN or infinity in nested plain data, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    if isinstance(value, dict):
        entries = [(f"{place}.{key}", entry) for key, entry in value.items()]
    elif isinstance(value, (list, tuple)):
        entries = [(f"{place}[{index}]", entry) for index, entry in enumerate(value)]
    else:
        return None
    return next((found for name, entry in entries if (found := _first_non_finite(entry, name)) is not None), None)
