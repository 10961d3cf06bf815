"""Errors of the templates: one line each, naming the template and the variable."""


class PromptError(Exception):
    """Base of every error raised by :mod:`prompts`."""


class TemplateNotFoundError(PromptError, FileNotFoundError):
    """There is no template of that name."""


class TemplateVariableError(PromptError, KeyError):
    """A variable of the template was not given, or one was given that the template does not use."""

    def __str__(self) -> str:  # KeyError would quote the message
        return str(self.args[0]) if self.args else ""


class QuestionSetError(PromptError, ValueError):
    """A set of questions is not there or not as it should be."""
