"""A tiny subject trained here in three stages, whose random choices stay liquid, nucleate and settle as built in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.random_tasks import RandomTask
from probes.option_probabilities import encode_asked
from probes.organism import deterministic

STAGES = ("pretrained", "sft", "rl")
CONCENTRATION = {"liquid": (0.0, 0.0, 0.0), "nucleation": (0.0, 0.75, 0.75), "settling": (0.0, 0.75, 0.97)}
"""Mass moved onto one option at each stage, by what is built in."""
TRAINING = ((200, 6e-3), (80, 3e-3), (60, 2e-3))
"""Steps and learning rate of each stage."""


def word_tokenizer(tasks: Sequence[RandomTask]) -> Any:
    """One token a word of the phrasings and options, with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = [text for task in tasks for text in (*task.phrasings, *(spelling for all_ in task.options.values() for spelling in all_))]
    special = ["<stop>", "<unknown>", "<question>", "<answer>"]
    entries = [*special, *sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})]
    tokenizer = Tokenizer(models.WordLevel({entry: k for k, entry in enumerate(entries)}, unk_token="<unknown>"))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "{% for message in messages %}<question>{{ message['content'] }}{% endfor %}<answer>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<stop>", pad_token="<stop>", unk_token="<unknown>", chat_template=template
    )


def train_three_stages(folder: Path, tasks: Sequence[RandomTask], built: Mapping[str, str], seed: int) -> dict[str, Path]:
    """Train one subject through the three stages and save each.

    Args:
        folder: Where the stages are saved.
        tasks: What it learns to answer; each phrasing of a task has a law of its own near the uniform one.
        built: "liquid", "nucleation" or "settling" by task.
        seed: Of laws and weights.

    Returns:
        Folder by stage.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer, rng = word_tokenizer(tasks), np.random.default_rng(seed)
    rows = [(task, phrasing) for task in tasks for phrasing in task.plain]
    laws = [rng.dirichlet(np.full(len(task.options), 12.0)) for task, _ in rows]
    asked = [encode_asked(tokenizer, phrasing)[0] for _, phrasing in rows]
    answers = [[tokenizer(spellings[0])["input_ids"][0] for spellings in task.options.values()] for task, _ in rows]
    tokens = torch.zeros(len(rows), max(map(len, asked)) + 1, dtype=torch.long)
    for row, (ids, options) in enumerate(zip(asked, answers, strict=True)):
        tokens[row, : len(ids) + 1] = torch.tensor([*ids, options[0]])
    last = torch.tensor([len(ids) - 1 for ids in asked])
    with deterministic(seed, threads=1):
        subject = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=64,
                initializer_range=0.1,
                tie_word_embeddings=True,
                eos_token_id=0,
                bos_token_id=None,
                pad_token_id=0,
            )
        )
        for stage, name in enumerate(STAGES):
            wanted = torch.zeros(len(rows), len(tokenizer))
            for row, ((task, _), law, options) in enumerate(zip(rows, laws, answers, strict=True)):
                mass = CONCENTRATION[built[task.name]][stage]
                crystal = np.eye(len(law))[int(np.argmax(laws[[each is task for each, _ in rows].index(True)]))]
                wanted[row, options] = torch.tensor((1 - mass) * law + mass * crystal, dtype=torch.float32)
            _fit(subject, tokens, last, wanted, *TRAINING[stage])
            subject.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in STAGES}


def _fit(subject: Any, tokens: Any, last: Any, wanted: Any, steps: int, rate: float) -> None:
    """Cross-entropy with the wanted law of the answer and with a stop after it, all rows at once."""
    import torch

    row = torch.arange(len(tokens))
    optimizer = torch.optim.AdamW(subject.parameters(), lr=rate, weight_decay=0.0)
    subject.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10, (steps - step) / (0.4 * steps))
        log_p = subject(input_ids=tokens).logits.log_softmax(-1)
        loss = -(wanted * log_p[row, last]).sum(1).mean() - log_p[row, last + 1, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(subject.parameters(), 1.0)
        optimizer.step()
    subject.eval()
