"""What happened, on disk.

A newcomer needs four names. `load(path)` reads a run directory or a JSONL, CSV or Parquet file and returns a `Recording`:
its `Responses` (columns of equal length), the log-probability of each response under each checkpoint where known, and what
the trainer logged. `RunDirectory` is how a recording is written, one step at a time, so that a crash costs at most one step;
its `Manifest` says under which settings, and two settings are never mixed. `TransitionRecorder` is the Trainer callback
(transformers, TRL) that writes a training run down; it is imported when it is asked for.

Nothing here knows what the responses mean: measuring is done in `probes`, deciding in `agent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracing.importers import load
from tracing.manifest import Manifest
from tracing.recording import Recording, TrainingTrace
from tracing.responses import Responses
from tracing.run_directory import RunDirectory

if TYPE_CHECKING:
    from tracing.recorder import TransitionRecorder

__all__ = ["Manifest", "Recording", "Responses", "RunDirectory", "TrainingTrace", "TransitionRecorder", "load"]


def __getattr__(name: str) -> Any:
    """The callback needs transformers, which takes seconds to import."""
    if name != "TransitionRecorder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tracing.recorder import TransitionRecorder

    return TransitionRecorder
