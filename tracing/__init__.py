"""What happened, on disk.

A newcomer needs four names. `load(path)` reads a run directory or a JSONL, CSV or Parquet file and returns a `Recording`:
its `Responses` (columns of equal length), the log-probability of each response under each checkpoint where known, and what
the trainer logged. `RunDirectory` is how a recording is written, one step at a time, so that a crash costs at most one step;
its `Manifest` says under which settings, and two settings are never mixed.

Nothing here knows what the responses mean: measuring is done in `probes`, deciding in `agent`.
"""

from __future__ import annotations

from tracing.importers import load
from tracing.manifest import Manifest
from tracing.recording import Recording, TrainingTrace
from tracing.responses import Responses
from tracing.run_directory import RunDirectory

__all__ = ["Manifest", "Recording", "Responses", "RunDirectory", "TrainingTrace", "load"]
