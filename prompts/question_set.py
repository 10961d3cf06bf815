"""Sets of questions put to the subject: ours lie in `questions/`, one TOML file a set; anyone's own have the same form."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompts import FOLDER
from prompts.errors import QuestionSetError

OUR_QUESTIONS = FOLDER / "questions"
_FIELDS = {"purpose", "provenance", "system", "questions"}


@dataclass(frozen=True)
class QuestionSet:
    """Questions that belong together.

    Attributes:
        name: File name without `.toml`.
        purpose, provenance: Why they are asked, and where their words come from.
        system: System prompt put before each; empty for none.
        questions: At least one, all different.
    """

    name: str
    purpose: str
    provenance: str
    system: str
    questions: tuple[str, ...]


def question_set_names() -> tuple[str, ...]:
    """Names of our own sets, in order."""
    return tuple(sorted(file.stem for file in OUR_QUESTIONS.glob("*.toml")))


def load_question_set(name: str | Path) -> QuestionSet:
    """One of our sets by its name, or a TOML file of the same form.

    Args:
        name: `politics`, or the path of a file `*.toml`.

    Raises:
        QuestionSetError: There is none, or the file is not as it should be: which file, what was expected, what was found.
    """
    file = OUR_QUESTIONS / f"{name}.toml" if re.fullmatch(r"[a-z0-9_]+", str(name)) else Path(name)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise QuestionSetError(
            f"questions {name}: expected a TOML file or one of {', '.join(question_set_names())}, found neither"
        ) from None
    except ValueError as error:
        raise QuestionSetError(f"{file}: expected questions in TOML, found something else ({error})") from None
    if unknown := sorted(set(content) - _FIELDS):
        raise QuestionSetError(f"{file}: expected only {', '.join(sorted(_FIELDS))}, found also {', '.join(unknown)}")
    texts = {key: _text(file, content, key) for key in ("purpose", "provenance", "system")}
    return QuestionSet(file.stem, questions=_questions(file, content.get("questions")), **texts)


def _text(file: Path, content: dict[str, Any], key: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise QuestionSetError(f"{file}: expected {key} as a text, found {str(value)[:60]}")
    return value


def _questions(file: Path, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text.strip() for text in value):
        raise QuestionSetError(f"{file}: expected questions as a list of texts, found {str(value)[:60]}")
    if len(set(value)) < len(value):
        raise QuestionSetError(f"{file}: expected different questions, found {next(t for t in value if value.count(t) > 1)!r} twice")
    return tuple(value)
