"""Checkpoints of tiny models with weights that say something, written as `fit` writes them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.tokenizer import END_OF_TEXT, META
from lightning_metatok.export.families import FAMILIES
from lightning_metatok.export.write import Trained
from lightning_metatok.lit.checkpoints.marks import Marks
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.build import own
from tests.system.helpers import documents

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
SMALL = {"vocab_size": 304, "max_position_embeddings": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 304, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {**SIZES, **SMALL, "rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "llama": {**SIZES, **SMALL, "num_key_value_heads": 2},
    "qwen2": {**SIZES, **SMALL, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "mistral": {**SIZES, **SMALL, "num_key_value_heads": 4, "sliding_window": None},
}
"""Tiny models of each architecture."""
TINY = {"n_layers": 2, "n_heads": 2, "d_model": 16, "max_positions": 48}
Make = Callable[..., Trained]


@pytest.fixture(scope="session")
def tokenizer() -> MetaTokenizer:
    """Of 300 ids."""
    return MetaTokenizer.train(documents(3), 300)


@pytest.fixture(scope="session")
def make(tokenizer: MetaTokenizer) -> Make:
    """A function that makes what an export reads, of a tiny model with these options."""

    def make(**options: Any) -> Trained:
        config = TransformerConfig(**{**TINY, "vocab_size": 304, **options})
        model = own(config, seed=1)
        model.know_separators(tokenizer.ending_in(config.separators))
        return Trained(drawn(model), tokenizer, Marks(0.1, "random"), 20, Path("x/y/z.ckpt"))

    return make


@torch.no_grad()
def drawn(model: Any) -> Any:
    """A model whose every weight is drawn, biases and norms too."""
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def prompts(meta_id: int) -> torch.Tensor:
    """Two prompts of 12 tokens with two or three meta-tokens."""
    tokens_BT = torch.randint(2, 300, (2, 12), generator=torch.Generator().manual_seed(3))
    tokens_BT[:, [3, 8]] = meta_id
    tokens_BT[1, 5] = meta_id
    return tokens_BT


@pytest.fixture(scope="session")
def hub_models(tokenizer: MetaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of tiny models of transformers, one an architecture, whose tokenizer knows no <|meta|>."""
    import transformers

    folder = tmp_path_factory.mktemp("hub")
    content = json.loads(tokenizer.to_json())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != META]
    content["model"]["vocab"] = {t: i - (i > 1) for t, i in content["model"]["vocab"].items() if t != META}
    for added in content["added_tokens"]:
        added["id"] = content["model"]["vocab"][added["content"]]
    for name, family in FAMILIES.items():
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
        config = getattr(transformers, family.config_class)(**CONFIGS[name], **ids)
        drawn(getattr(transformers, family.model_class)(config)).save_pretrained(folder / name)
        (folder / name / "tokenizer.json").write_text(json.dumps(content))
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT}
        (folder / name / "tokenizer_config.json").write_text(json.dumps({**told, "pad_token": END_OF_TEXT}))
    return folder
