"""The tokenizer of a run: the one its checkpoints share, with a template to ask by."""

from __future__ import annotations

from typing import Any

from agent.checkpoint_source import CheckpointSource


def run_tokenizer(source: CheckpointSource) -> tuple[Any, list[str]]:
    """The tokenizer, with a chat template, and notes on it.

    Stages have to share their vocabulary; they are asked by the template of the last one that has any. Without a template a question is
    a line of text followed by "Answer:".

    Raises:
        SampleError: Stages cut texts into other tokens, so that their probabilities cannot be compared.
    """
    from probes.errors import SampleError
    from probes.subjects import PLAIN_TEMPLATE, load_tokenizer

    tokenizer = load_tokenizer(source.tokenizer_places()[0])
    notes = []
    if source.stages is not None:
        found = {source.stages[step]: load_tokenizer(source.folder(step)) for step in source.steps}
        first = next(iter(found))
        for name, each in found.items():
            if each.get_vocab() != found[first].get_vocab():
                raise SampleError(
                    f"--stages: expected one vocabulary, found another in {name} than in {first}: their laws cannot be compared"
                )
        asking = next((name for name in reversed(found) if found[name].chat_template), None)
        tokenizer = found[asking or first]
        if asking is not None and len({each.chat_template for each in found.values()}) > 1:
            notes.append(f"all stages are asked by the chat template of {asking}")
    if tokenizer.eos_token_id is None:
        raise SampleError(f"{source.tokenizer_places()[0]}: expected a tokenizer with a stop token, found none")
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        notes.append('the subject has no chat template: asked as a line of text followed by "Answer:"')
    return tokenizer, notes
