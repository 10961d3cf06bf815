from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from agent.errors import MemoryStoreError
from agent.memory import Memory, MemoryEvent
from agent.memory_embedders import NgramEmbedder, make_embedder
from agent.records import OrderParameter
from tests.optional_part import missing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence-transformers model made here: one random layer over the letters of a text."""
    if importlib.util.find_spec("sentence_transformers") is None:
        missing("sentence-transformers", "pip install -c constraints.txt -e '.[st]'")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("st")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    torch.manual_seed(0)
    shape = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(shape).save_pretrained(folder / "bert")
    # transformers 5 does not read `vocab_file=` here: every word would be [UNK] and every text the same
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder / "bert")
    encoder = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension())]).save(str(folder / "model"))
    return folder / "model"


def event(name: str) -> MemoryEvent:
    """An accepted order parameter."""
    return MemoryEvent("accepted", OrderParameter(name=name, definition=f"{name}.", question=f"How much {name}?", levels=("no", "yes")))


@pytest.mark.slow
def test_a_sentence_transformers_model_embeds_and_is_never_mixed(model: Path, tmp_path: Path) -> None:
    """`st:NAME` gives unit vectors and finds texts; another embedder is refused in one line, and rebuilding changes it."""
    embedder = make_embedder(f"st:{model}")
    vectors = embedder.embed(["hedging", "contempt"])
    assert (embedder.id, vectors.shape) == (f"st:{model}", (2, 32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert vectors[0] @ vectors[1] < 0.999
    with Memory.open(tmp_path, f"st:{model}") as memory:
        memory.append_many([event("hedging"), event("contempt")])
        hit = memory.search("hedging\nhedging.\nHow much hedging?", 1)[0]
        assert (hit.entry.parameter.name, round(hit.similarity, 4)) == ("hedging", 1.0)
    with pytest.raises(MemoryStoreError, match=r"built with embedder 'st:.*discover memory rebuild --embedder ngrams`") as refused:
        Memory.open(tmp_path)
    assert "\n" not in str(refused.value)
    with Memory.open(tmp_path, rebuild=True, on_notice=lambda text: None) as memory:
        assert memory.embedder_id == NgramEmbedder().id
        assert memory.verify().ok
