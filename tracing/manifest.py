"""The manifest of a run directory: what was recorded and under which settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tracing.errors import RunDirectoryError
from tracing.whole_file import whole_file

FORMAT = "order-parameter-run"
VERSION = 1
_MEASURED = ("noise_nats",)  # found out while scoring, not chosen: it must not make two halves of one run incompatible


@dataclass(frozen=True)
class Manifest:
    """How a run was recorded.

    Attributes:
        subject: Which model was recorded.
        steps: Checkpoints of the run, ascending; 0 is the base.
        prefixes: Prefix lengths in tokens, ascending, whose log-probabilities are stored too.
        sampling: temperature, top_p, top_k, max_tokens, seed, responses_per_prompt, dtype.
        scoring: dtype, and noise_nats (measured absolute error of a response's log-probability).
        notes: What a reader of the results should know.
        extra: Anything else (kept, not interpreted).
    """

    subject: str
    steps: tuple[int, ...]
    prefixes: tuple[int, ...] = ()
    sampling: dict[str, Any] = field(default_factory=dict)
    scoring: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT
    version: int = VERSION

    def __post_init__(self) -> None:
        """Check that steps and prefixes ascend.

        Raises:
            RunDirectoryError: They do not.
        """
        for name in ("steps", "prefixes"):
            numbers = getattr(self, name)
            whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
            if not whole or list(numbers) != sorted(set(numbers)):
                raise RunDirectoryError(f"manifest: expected {name} as ascending whole numbers from 0, found {list(numbers)}")

    @property
    def settings(self) -> dict[str, Any]:
        """What must be equal for two recordings to lie in one run directory."""
        scoring = {name: value for name, value in self.scoring.items() if name not in _MEASURED}
        return {
            "format": self.format,
            "version": self.version,
            "subject": self.subject,
            "prefixes": list(self.prefixes),
            "sampling": self.sampling,
            "scoring": scoring,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of `settings`."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write it to `path`, whole or not at all."""
        with whole_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            RunDirectoryError: It is missing, damaged, of another format, or newer than this program.
        """
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise RunDirectoryError(f"{path.parent}: expected a run directory with manifest.json, found none") from error
        except ValueError as error:
            raise RunDirectoryError(f"{path}: expected a JSON object, found something else ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise RunDirectoryError(f'{path}: expected "format": "{FORMAT}", found {json.dumps(found)}')
        version = content.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise RunDirectoryError(f'{path}: expected "version": {VERSION}, found {json.dumps(version)}')
        if version > VERSION:
            raise RunDirectoryError(
                f"{path}: expected format version {VERSION} or older, found {version}; update order-parameter-discovery"
            )
        return cls._from_content(content, path)

    @classmethod
    def _from_content(cls, content: dict[str, Any], path: Path) -> Manifest:
        expected = {"subject": str, "steps": list, "prefixes": list, "sampling": dict, "scoring": dict, "notes": list, "extra": dict}
        for name, kind in expected.items():
            if not isinstance(content.get(name), kind):
                raise RunDirectoryError(f"{path}: expected {name!r} as {kind.__name__}, found {json.dumps(content.get(name))[:80]}")
        if unknown := sorted(set(content) - set(expected) - {"format", "version"}):
            raise RunDirectoryError(f"{path}: expected only the fields of format version {VERSION}, found also {', '.join(unknown)}")
        lists = {name: tuple(content[name]) for name, kind in expected.items() if kind is list}
        try:
            return cls(**(content | lists))
        except RunDirectoryError as error:
            raise RunDirectoryError(f"{path}: {error}") from error
