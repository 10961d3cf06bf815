"""Errors of the instruments: one line each, saying what was expected and what was found."""


class ProbeError(Exception):
    """Base of every error raised by :mod:`probes`."""


class ShapeError(ProbeError, ValueError):
    """Arrays that should describe the same responses do not fit together."""


class SampleError(ProbeError, ValueError):
    """The responses cannot answer the question (too few, or one side only)."""
