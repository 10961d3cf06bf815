"""Reference responses: the same few texts for every run, so that labels of different runs can be compared.

An order parameter's levels on them are its fingerprint. Two runs share hardly a response, but all share these.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prompts.errors import PromptError

FILE = Path(__file__).resolve().parent / "reference_responses.toml"


@dataclass(frozen=True)
class ReferenceResponse:
    """One of the texts.

    Attributes:
        domain: What the question is about.
        prompt: The question, as a subject would get it.
        completion: One answer to it.
    """

    domain: str
    prompt: str
    completion: str


def digest_of(responses: tuple[ReferenceResponse, ...]) -> str:
    """Hash of all texts, 16 hex digits: fingerprints can be compared only if it is the same."""
    return hashlib.sha256(json.dumps([(one.prompt, one.completion) for one in responses]).encode()).hexdigest()[:16]


@cache
def reference_responses(file: Path = FILE) -> tuple[ReferenceResponse, ...]:
    """All of them, in the file's order.

    Raises:
        PromptError: The file cannot be read, or a text stands in it twice.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        found = tuple(
            ReferenceResponse(str(question["domain"]), str(question["text"]), str(answer))
            for question in content["question"]
            for answer in question["answers"]
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise PromptError(f"{file}: expected questions with domain, text and answers, found something else ({problem})") from None
    if len({(one.prompt, one.completion) for one in found}) < len(found):
        raise PromptError(f"{file}: expected different answers, found one twice")
    return found
