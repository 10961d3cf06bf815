from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import prompts
from prompts import PromptError, Template, TemplateNotFoundError, TemplateVariableError


def test_a_template_is_filled_with_every_variable() -> None:
    """Each variable is replaced wherever it stands, and nothing else changes."""
    template = Template("greet", "Dear {{name}},\nyou, {{ name }}, asked: {{question}} {not_one} {{Not One}}\n")
    assert template.variables == {"name", "question"}
    assert template.fill(name="Ada", question="Why?") == "Dear Ada,\nyou, Ada, asked: Why? {not_one} {{Not One}}\n"


@pytest.mark.parametrize(
    ("values", "more", "fault"),
    [
        ({}, {"name": "Ada"}, "missing: question"),
        ({"name": "Ada", "question": "Why?"}, {"colour": "red"}, "unused: colour"),
        ({"name": "Ada", "question": "Why?"}, {"name": "Ada"}, "given twice: name"),
        ({}, {}, "missing: name, question"),
    ],
)
def test_a_missing_or_unused_variable_is_an_error(values: dict[str, str], more: dict[str, str], fault: str) -> None:
    """Filling is strict: what is missing, unused or doubled is named in one line together with the template."""
    with pytest.raises(TemplateVariableError) as caught:
        Template("ask", "{{name}}: {{question}}").fill(values, **more)
    assert fault in str(caught.value)
    assert "template ask" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, PromptError)
    assert isinstance(caught.value, KeyError)


def test_a_value_cannot_reach_a_variable() -> None:
    """Braces and backslashes in a value stay text: an untrusted response cannot pull another variable into its place."""
    template = Template("judge", "{{response}} / {{question}}")
    assert template.fill(response=r"{{question}} \1 \g<0>", question="Is it kind?") == r"{{question}} \1 \g<0> / Is it kind?"


def test_loading_reads_markdown_and_hashes_its_text(tmp_path: Path) -> None:
    """A template's hash is that of its text, the same for Windows and Unix line ends, and differs when a word does."""
    (tmp_path / "one.md").write_bytes("# Judge — {{question}}\r\n".encode())
    (tmp_path / "two.md").write_bytes("# Judge — {{question}}\n".encode())
    (tmp_path / "three.md").write_bytes("# Judge — {{answer}}\n".encode())
    (tmp_path / "notes.txt").write_text("not a template", encoding="utf-8")
    found = prompts.hashes(tmp_path)
    assert list(found) == ["one", "three", "two"]
    assert found["one"] == found["two"] == hashlib.sha256("# Judge — {{question}}\n".encode()).hexdigest()
    assert found["three"] != found["one"]
    assert prompts.load("one", tmp_path).fill(question="kind?") == "# Judge — kind?\n"


@pytest.mark.parametrize("name", ["absent", "../prompts/errors", "/etc/passwd", ""])
def test_an_unknown_template_is_one_line_that_lists_the_known_ones(name: str, tmp_path: Path) -> None:
    """A wrong name, or one that tries to leave the folder, is an error naming what there is."""
    (tmp_path / "judge.md").write_text("{{question}}", encoding="utf-8")
    with pytest.raises(TemplateNotFoundError, match="known: judge") as caught:
        prompts.load(name, tmp_path)
    assert isinstance(caught.value, FileNotFoundError)


def test_every_shipped_template_can_be_filled() -> None:
    """Each Markdown file beside the package loads, has a hash, and leaves no brace behind once its variables are given."""
    for name, digest in prompts.hashes().items():
        template = prompts.load(name)
        assert template.sha256 == digest
        assert "{{" not in template.fill(dict.fromkeys(template.variables, "value"))
