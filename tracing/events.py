"""What the agent did, in order: an append-only file of one JSON object per line."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

from tracing.json_lines import append_lines, read_lines


class EventLog:
    """Appends events to `path`; each is on disk before `append` returns.

    No clock is read: the same run writes the same bytes. Whoever wants times passes them as a field.
    A line that a crash left half-written is ignored by `read` and cut off by the next `append`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock()

    def append(self, event: str, **fields: Any) -> None:
        """Write one event.

        Args:
            event: What happened (`judged`, `accepted`, ...).
            **fields: JSON values that say more.

        Raises:
            ValueError: A value is not JSON (NaN and infinities are not).
            TypeError: Likewise, for objects.
        """
        with self._lock:
            append_lines(self.path, [{"event": event, **fields}])

    def read(self) -> list[dict[str, Any]]:
        """All events in order; none when nothing was written yet.

        Raises:
            EventsError: A whole line is no JSON object.
        """
        return [row for _, row in read_lines(self.path)] if self.path.exists() else []
