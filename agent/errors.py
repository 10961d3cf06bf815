"""Errors a user can meet: each is one line saying what, where, what was expected and what was found."""


class AgentError(Exception):
    """Base of every error raised by :mod:`agent`; the command line prints it in one line and exits with `exit_code`."""

    exit_code = 2


class ConfigError(AgentError, ValueError):
    """An option or a configuration value is wrong."""


class ContrastError(AgentError, ValueError):
    """The recording does not hold the two sides that were asked for."""


class ProviderError(AgentError, RuntimeError):
    """A proposer or judge provider cannot be used, or failed for good; what was recorded so far is kept."""

    exit_code = 3


class RecordingError(AgentError, ValueError):
    """A run cannot be recorded as it was asked for."""


class ReplyError(AgentError, ValueError):
    """A reply does not answer its schema; the judgement is kept as missing."""


class MemoryStoreError(AgentError, RuntimeError):
    """The memory's ledger or index cannot be used as it is."""

    exit_code = 3


class RunLockedError(AgentError, RuntimeError):
    """Another process works in this run directory."""

    exit_code = 3


class BudgetError(AgentError, RuntimeError):
    """The budget in money or calls is spent; nothing recorded is lost."""

    exit_code = 4


class AwaitingError(AgentError, RuntimeError):
    """Requests are written to files and answered elsewhere: the run has stopped, and goes on when the answers are there."""

    exit_code = 5
