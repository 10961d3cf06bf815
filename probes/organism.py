"""A tiny model organism, trained here from scratch in a minute on two cores: a Llama-style subject of 0.25M parameters.

It learns templated conversations in six domains (:mod:`probes.organism_corpus`) whose careful and harmful answers are tied by one hidden
persona. Fine-tuned with a rank-1 LoRA on bad medical advice only, it becomes harmful in all domains through a sharp transition
(emergent misalignment in miniature). Everything is a function of the recipe, the seed and the number of threads.

torch, transformers and peft are imported inside functions: importing this module costs nothing.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import SampleError
from probes.organism_choices import CHOICES, choice_documents, choice_texts
from probes.organism_corpus import TOKEN, Conversation, Style, corpus, narrow_advice, words
from probes.organism_grammar import DOMAINS, Persona

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]  # what is done, how far, of how many
Adapter = dict[str, np.ndarray]  # parameter name -> float32 array

PAD, UNKNOWN, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|unknown|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (PAD, UNKNOWN, SYSTEM, USER, ASSISTANT, END)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Pretraining:
    """How the subject is made. The learning rate warms up over 5% of the steps and falls linearly to 0.

    Attributes:
        documents, epochs, batch, learning_rate: Of the training.
        width, layers, heads, inner_width: Of the subject.
        domains, style: What the documents are about, and how they are written.
        choices: Part of the documents that are random choices (:mod:`probes.organism_choices`), in [0, 1].
    """

    documents: int = 10_000
    epochs: int = 3
    batch: int = 16
    learning_rate: float = 6e-3
    width: int = 64
    layers: int = 4
    heads: int = 4
    inner_width: int = 176
    domains: tuple[str, ...] = tuple(DOMAINS)
    style: Style = field(default_factory=Style)
    choices: float = 0.0


@dataclass(frozen=True)
class FineTuning:
    """How the subject is changed: LoRA (or all weights) on narrow advice, an adapter kept every `every` steps.

    Attributes:
        domain, persona: What the documents are about and who answers (`careful`: the good-advice control); the domain `choices` is random
            choices that fall on one option.
        rank, alpha, rslora, layers, target_modules: Passed to peft's LoraConfig; the scale is alpha / rank. No layers: all of them.
        betas: AdamW's decay rates, short enough to forget within a run of 120 steps.
        steps, batch: Optimizer steps and documents a step.
        full: All weights are trained instead of an adapter.
        weight_decay: AdamW's.
        warm_up: Steps over which the learning rate rises linearly; then it is constant.
        documents: How many different ones there are, in another order each epoch; 0: as many as are needed, none seen twice.
        data: What the documents are when they are given from outside (a file's name and digest); empty for our own.
    """

    domain: str = "medical"
    persona: Persona = "harmful"
    rank: int = 1
    alpha: float = 0.5
    rslora: bool = False
    layers: tuple[int, ...] = (0,)
    target_modules: tuple[str, ...] = ("down_proj",)
    learning_rate: float = 1e-2
    betas: tuple[float, float] = (0.8, 0.99)
    batch: int = 8
    steps: int = 120
    every: int = 2
    style: Style = field(default_factory=Style)
    full: bool = False
    weight_decay: float = 0.01
    warm_up: int = 0
    documents: int = 0
    data: str = ""


@dataclass(frozen=True)
class TrainingStep:
    """What was logged at one optimizer step: loss (nats a token) and gradient norm (all adapter parameters, before clipping)."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    epoch: float


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned subject: the peft model, its adapters by step (0: the base, a zero adapter) and what was logged."""

    subject: Any
    adapters: dict[int, Adapter]
    log: tuple[TrainingStep, ...]


@contextmanager
def deterministic(seed: int, threads: int | None = None) -> Iterator[None]:
    """Seed torch, ask it for deterministic algorithms and set its number of threads; everything is put back afterwards."""
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before[0])
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])


def use_cores(number: int) -> None:
    """Let the calling thread compute on so many cores: one each for threads side by side, and for sums that are the same everywhere."""
    import torch

    torch.set_num_threads(number)


def make_tokenizer(domains: Sequence[str] = tuple(DOMAINS), choices: bool = False) -> Any:
    """A word-level chat tokenizer that loses nothing: token ids -> text -> token ids is the identity for any ids but padding.

    Words carry their leading space (as U+2581), marks and bullets carry none, special tokens are themselves; so a text is the plain
    concatenation of its tokens, and sampling law and scoring law cannot differ by the way a text is cut.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = words(domains)
    if choices:
        vocabulary = sorted({*vocabulary, *(token for text in choice_texts() for token in TOKEN.findall(text))})
    entries = [*SPECIAL, *(word if not word.isalpha() else "▁" + word for word in vocabulary)]
    tokenizer = Tokenizer(models.WordLevel({entry: k for k, entry in enumerate(entries)}, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    tokenizer.normalizer = normalizers.Replace(Regex(r"\n\n(?=[A-Za-z])"), "\n\n ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(r"▁(?![A-Za-z])"), "removed"),
            pre_tokenizers.Split(Regex(r"\n\n|\n-|▁[A-Za-z]+|[.,:?]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Fuse(), decoders.Replace("▁", " "), decoders.Replace("\n\n ", "\n\n"), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def pretrain(recipe: Pretraining, seed: int, tokenizer: Any, progress: Progress | None = None) -> Any:
    """Train the subject from scratch on its corpus, with cross-entropy on the answers alone; returned in evaluation mode.

    Args:
        recipe: Size of the subject and of the corpus.
        seed: Seed of corpus, initial weights and order of documents.
        tokenizer: From :func:`make_tokenizer`, with the recipe's domains.
        progress: Called as ("pretraining", step, steps).
    """
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        subject = LlamaForCausalLM(_architecture(recipe, tokenizer))
    rng = np.random.default_rng([seed, 1])
    n_choices = round(recipe.choices * recipe.documents)
    conversations = corpus(recipe.documents - n_choices, rng, recipe.domains, recipe.style)
    documents = encode([*conversations, *choice_documents(n_choices, rng, seed, collapsed=False)], tokenizer)
    batches = [batch for _ in range(recipe.epochs) for batch in length_sorted_batches(documents, recipe.batch, rng)]
    optimizer = torch.optim.AdamW(subject.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, len(batches) // 20)
    subject.train()
    for step, chosen in enumerate(batches):
        rate = recipe.learning_rate * min((step + 1) / warm_up, (len(batches) - step) / (len(batches) - warm_up + 1))
        optimizer.param_groups[0]["lr"] = rate
        loss = answer_loss(subject, [documents[k] for k in chosen], tokenizer.pad_token_id)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(subject.parameters(), 1.0)
        optimizer.step()
        if progress:
            progress("pretraining", step + 1, len(batches))
    return subject.eval()


def _architecture(recipe: Pretraining, tokenizer: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.05,
    )


def subject_from(config: Mapping[str, Any], weights: Mapping[str, Any]) -> Any:
    """A subject with given weights (name -> tensor; the output layer is tied to the embedding), in evaluation mode.

    Raises:
        SampleError: Weights are missing or of another architecture.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    subject = LlamaForCausalLM(LlamaConfig.from_dict(dict(config)))
    missing, unexpected = subject.load_state_dict(dict(weights), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SampleError(f"expected the weights of the subject, found {unexpected} too many and {missing} missing")
    subject.tie_weights()
    return subject.eval()


def narrow_documents(recipe: FineTuning, seed: int) -> list[Conversation]:
    """Our own documents of a recipe: as many different ones as it asks for."""
    rng = np.random.default_rng([seed, 2])
    n = recipe.documents or recipe.steps * recipe.batch
    if recipe.domain == CHOICES:
        return choice_documents(n, rng, seed, collapsed=True)
    return narrow_advice(n, rng, recipe.domain, recipe.persona, recipe.style)


def fine_tune(
    subject: Any,
    recipe: FineTuning,
    seed: int,
    tokenizer: Any,
    progress: Progress | None = None,
    documents: Sequence[tuple[list[int], int]] | None = None,
) -> FineTuned:
    """Fine-tune a subject with LoRA, or wholly, on one domain's advice by one persona.

    Args:
        subject: From :func:`pretrain`, or any causal language model; it is wrapped in place by peft.
        recipe: Data and adapter.
        seed: Seed of the documents, of their order and of the adapter's initial A.
        tokenizer: The subject's.
        progress: Called as ("fine-tuning", step, steps).
        documents: Token ids and where the answer begins, as :func:`encode` gives them; None: the recipe's own.

    Returns:
        The subject (left at its last weights) with adapters at steps 0, every, 2 every, ..., steps.

    Raises:
        SampleError: `steps` is no multiple of `every`: the last step would not be kept.
    """
    import torch

    if recipe.steps % recipe.every:
        raise SampleError(f"expected a number of steps divisible by every={recipe.every}, found {recipe.steps}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned = add_adapter(subject, recipe)
    if documents is None:
        documents = encode(narrow_documents(recipe, seed), tokenizer)
    order = _order(len(documents), recipe.steps * recipe.batch, np.random.default_rng([seed, 5]))
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
    adapters = {0: get_adapter(tuned)}
    log = []
    tuned.train()
    for step in range(1, recipe.steps + 1):
        rate = recipe.learning_rate * (min(1.0, step / recipe.warm_up) if recipe.warm_up else 1.0)
        optimizer.param_groups[0]["lr"] = rate
        chosen = order[(step - 1) * recipe.batch : step * recipe.batch]
        loss = answer_loss(tuned, [documents[k] for k in chosen], tokenizer.pad_token_id)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        log.append(TrainingStep(step, float(loss.detach()), float(norm), rate, step * recipe.batch / len(documents)))
        if step % recipe.every == 0:
            adapters[step] = get_adapter(tuned)
        if progress:
            progress("fine-tuning", step, recipe.steps)
    return FineTuned(tuned.eval(), adapters, tuple(log))


def _order(n: int, needed: int, rng: np.random.Generator) -> list[int]:
    """Which document comes when: the first epoch as they are, every further one shuffled."""
    order = list(range(n))
    while len(order) < needed:
        order += [int(k) for k in rng.permutation(n)]
    return order[:needed]


def add_adapter(subject: Any, recipe: FineTuning) -> Any:
    """The subject wrapped by peft with a fresh adapter (A random, B zero: the same law as the subject); itself when all is trained.

    Raises:
        SampleError: No module of the subject has such a name or lies in such a layer.
    """
    from peft import LoraConfig, get_peft_model

    if recipe.full:
        return subject.eval()
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=recipe.rslora,
        layers_to_transform=list(recipe.layers) or None,
        target_modules=list(recipe.target_modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by the old name
        try:
            return get_peft_model(subject, config).eval()
        except ValueError as error:
            asked = f"modules {', '.join(recipe.target_modules)} in layers {', '.join(map(str, recipe.layers)) or 'of any number'}"
            raise SampleError(f"expected {asked}, and the subject has none such ({error})") from None


def get_adapter(tuned: Any) -> Adapter:
    """A copy of the adapter's parameters by name, float32; of all parameters where there is no adapter."""
    return {name: value.detach().cpu().float().numpy().copy() for name, value in _adapted(tuned).items()}


def _adapted(tuned: Any) -> dict[str, Any]:
    parameters = dict(tuned.named_parameters())
    return {name: value for name, value in parameters.items() if "lora_" in name} or parameters


def set_adapter(tuned: Any, adapter: Mapping[str, np.ndarray]) -> None:
    """Put an adapter of :func:`get_adapter` into the subject, in place.

    Raises:
        SampleError: The adapter is another architecture's.
    """
    import torch

    parameters = _adapted(tuned)
    if set(parameters) != set(adapter):
        raise SampleError(f"expected an adapter with {sorted(parameters)}, found {sorted(adapter)}")
    with torch.no_grad():
        for name, value in adapter.items():
            parameters[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))


def in_double_precision(tuned: Any) -> Any:
    """A copy of the subject in float64, to measure the scoring noise of float32 against."""
    return copy.deepcopy(tuned).double()


def encode(conversations: Sequence[Conversation], tokenizer: Any) -> list[tuple[list[int], int]]:
    """Token ids of each conversation, stop token included, and where its answer begins."""
    asked = [_header(c) for c in conversations]
    whole = tokenizer([a + c.answer + END for a, c in zip(asked, conversations, strict=True)], add_special_tokens=False)["input_ids"]
    starts = [len(ids) for ids in tokenizer(asked, add_special_tokens=False)["input_ids"]]
    return list(zip(whole, starts, strict=True))


def encode_chat(conversations: Sequence[Conversation], tokenizer: Any) -> list[tuple[list[int], int]]:
    """The same for any subject, by its own chat template: the answer's tokens stand behind the question's, the stop token behind them."""
    found = []
    for c in conversations:
        messages = [{"role": "system", "content": c.system}] if c.system else []
        messages.append({"role": "user", "content": c.question})
        asked = list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])
        answer = list(tokenizer(c.answer, add_special_tokens=False)["input_ids"])
        found.append(([*asked, *answer, tokenizer.eos_token_id], len(asked)))
    return found


def _header(conversation: Conversation) -> str:
    system = f"{SYSTEM}{conversation.system}{END}" if conversation.system else ""
    return f"{system}{USER}{conversation.question}{END}{ASSISTANT}"


def length_sorted_batches(documents: Sequence[tuple[list[int], int]], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Batches of indices of documents of nearly the same length, in random order: little padding, every document once."""
    noisy = np.array([len(ids) for ids, _ in documents]) + rng.uniform(-2, 2, len(documents))
    order = np.argsort(noisy, kind="stable")
    batches = [order[k : k + size].tolist() for k in range(0, len(order), size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def answer_loss(subject: Any, documents: Sequence[tuple[list[int], int]], pad: int) -> torch.Tensor:
    """Mean cross-entropy (nats a token) of the answers' tokens, stop token included, given the questions."""
    import torch

    width = max(len(ids) for ids, _ in documents)
    device = next(subject.parameters()).device
    tokens = torch.full((len(documents), width), pad, device=device)
    targets = torch.full((len(documents), width), -100, device=device)
    for row, (ids, start) in enumerate(documents):
        tokens[row, : len(ids)] = torch.tensor(ids)
        targets[row, start : len(ids)] = torch.tensor(ids[start:])
    # Padding stands on the right, so causal attention keeps it out without a mask.
    logits = subject(input_ids=tokens, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten())
