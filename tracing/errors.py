"""What can be wrong with recorded data: each is one line saying where, what was expected and what was found."""

from __future__ import annotations


class TracingError(Exception):
    """Base of every error raised by :mod:`tracing`; the command line prints it in one line and exits with `exit_code`."""

    exit_code = 2


class ImportFileError(TracingError, ValueError):
    """A file of responses cannot be read as it is; the message starts with `FILE:LINE:` (Parquet: `FILE:row N:`)."""


class ResponsesError(TracingError, ValueError):
    """A table of responses is not what its format promises."""


class LikelihoodsError(TracingError, ValueError):
    """An array of log-probabilities is not what its format promises."""


class RunDirectoryError(TracingError, ValueError):
    """A run directory is missing, foreign, newer than this program, or was recorded under other settings."""


class JudgementsError(TracingError, ValueError):
    """The store of judgements cannot be used as it is."""


class EventsError(TracingError, ValueError):
    """A file of one JSON object per line (events, training log) is damaged."""


class AdaptersError(TracingError, ValueError):
    """Saved adapters are missing, refused (a pickle), damaged, or do not fit together."""


class CheckpointsError(TracingError, ValueError):
    """A folder of checkpoints is missing, refused (a pickle), incomplete, or of several kinds."""


class RecorderError(TracingError, ValueError):
    """Training cannot be recorded as it was asked for."""


class LockedError(TracingError, RuntimeError):
    """Another process works here."""

    exit_code = 3
