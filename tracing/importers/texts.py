"""Prompts, system texts and completions of a file, from whichever columns hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracing.importers.columns import Columns
from tracing.importers.messages import Conversation, check_prompt, conversation, split_completion, unpacked
from tracing.importers.table import listed
from tracing.importers.values import texts


@dataclass(frozen=True)
class Texts:
    """(n,) system, prompt and completion, and what to tell the reader about them."""

    system: list[str]
    prompt: list[str]
    completion: list[str]
    notes: tuple[str, ...] = ()


def read_texts(columns: Columns) -> Texts:
    """Read prompts and completions from columns of text, columns of message lists, or one column of whole conversations.

    Raises:
        ImportFileError: A column is missing, or a value is no text and no message list, or no response follows a prompt.
    """
    prompt, completion = columns.find("prompt"), columns.find("completion")
    part = "prompt"
    if prompt is None and (prompt := columns.find("messages")) is not None:
        part = "messages"
    if prompt is None:
        raise columns.need("prompt", "messages")
    if completion is None and part == "prompt":
        raise columns.need("completion")
    table, name = columns.table, columns.name(part)
    whole = _conversations(columns, part, prompt)
    if completion is None:
        pairs = [split_completion(table, row, name, one) for row, one in enumerate(whole)]
        prompts, completions = [pair[0] for pair in pairs], texts(table, name, [pair[1] for pair in pairs])
    else:
        prompts = [check_prompt(table, row, name, one) for row, one in enumerate(whole)]
        completions = _completions(columns, completion)
    several = sum(len(one.turns) > 1 for one in prompts)
    return Texts(
        system=_systems(columns, texts(table, name, [one.system for one in prompts])),
        prompt=texts(table, name, [one.prompt for one in prompts]),
        completion=completions,
        notes=(f"{several} prompts hold several turns; they are read as one text with the roles written out",) if several else (),
    )


def _conversations(columns: Columns, part: str, values: list[Any]) -> list[Conversation]:
    """One conversation per row; a plain text is one turn of the user. The first value decides which of the two the column holds."""
    table, name = columns.table, columns.name(part)
    first = next(value for value in values if value is not None)
    if part == "prompt" and not isinstance(unpacked(table, first), list):
        plain = texts(table, name, values)
        if "" in plain:
            raise table.error(plain.index(""), f"a prompt in {name!r}", "an empty text")
        return [Conversation("", (("user", text),)) for text in plain]
    return [conversation(table, row, name, unpacked(table, value)) for row, value in enumerate(values)]


def _completions(columns: Columns, values: list[Any]) -> list[str]:
    """Completions as text, or as lists of one assistant message."""
    table, name = columns.table, columns.name("completion")
    if not isinstance(next(value for value in values if value is not None), list):
        return texts(table, name, values)
    result: list[Any] = []
    for row, value in enumerate(values):
        turns = conversation(table, row, name, value).turns
        if len(turns) != 1 or turns[0][0] != "assistant":
            raise table.error(row, f"one message of the assistant in {name!r}", listed(role for role, _ in turns) or "none")
        result.append(turns[0][1])
    return texts(table, name, result)


def _systems(columns: Columns, inside: list[str]) -> list[str]:
    """System texts from their own column (a missing one is the empty text) or from inside the message lists, never from both."""
    table, name = columns.table, columns.name("system")
    values = columns.find("system")
    if values is None:
        return inside
    given = texts(table, name, ["" if value is None else value for value in values])
    for row, (own, other) in enumerate(zip(given, inside, strict=True)):
        if own and other and own != other:
            raise table.error(row, f"one system text, in {name!r} or in the messages", "two different ones")
    return [own or other for own, other in zip(given, inside, strict=True)]
