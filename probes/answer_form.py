"""When does a response answer with an option? One rule for exact probabilities and for sampled texts (METHOD 6).

A response answers with an option when it begins with one of its spellings, in lower case, capitalised, in capitals or as written, after
any of the openings below, and when what follows is no letter or digit: "7.", "Heads, of course" and "**7**" answer, "70" and "7th" do not.
A single letter is also a word ("I", "A"), so no further word may follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPENINGS = ("", " ", "\n", '"', "**", ' "', " **")
CLOSING_MARKS = frozenset('.,;:!?)]}*"\n')


def written_forms(spellings: Sequence[str]) -> tuple[str, ...]:
    """Every way an option may be written at the beginning of a response, without repeats."""
    cased = [form for spelling in spellings for form in (spelling, spelling.lower(), spelling.capitalize(), spelling.upper())]
    return tuple(dict.fromkeys(opening + form for opening in OPENINGS for form in cased))


def is_letter(spelling: str) -> bool:
    """Whether it is a single letter, which no further word may follow."""
    return len(spelling.strip(' \n"*')) == 1 and spelling.strip(' \n"*').isalpha()


def ends_answer(following: str, letter: bool) -> bool:
    """Whether an option may end before this text ("" at the end of the response)."""
    if not following:
        return True
    return following[0] in CLOSING_MARKS if letter else not following[0].isalnum()


def read_option(response: str, options: Mapping[str, Sequence[str]]) -> str | None:
    """The option that a response answers with, or None when it answers with none.

    Of two that fit ("New" and "New York") the longer one is meant.
    """
    fitting = [
        (len(form), name)
        for name, spellings in options.items()
        for form in written_forms(spellings)
        if response.startswith(form) and ends_answer(response[len(form) :], is_letter(form))
    ]
    return max(fitting)[1] if fitting else None
