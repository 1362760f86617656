"""A tiny random Llama in a folder, to try things out where there is no network: two layers of width 64, 1,024 ids.

python -m lightning_metatok.export.tiny DIR
"""

import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.sources import stdlib_folder, stdlib_names
from lightning_metatok.data.tokenizer import END_OF_TEXT

N_IDS = 1024


def write_tiny(folder: Path, tokenizer: MetaTokenizer | None = None, seed: int = 0) -> None:
    """Write the model and a tokenizer, trained on sources of Python where none is given."""
    if tokenizer is None:
        paths = (stdlib_folder() / name for name in stdlib_names()[:200])
        tokenizer = MetaTokenizer.train((path.read_text("utf-8", errors="replace") for path in paths), N_IDS)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    told = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lightning_metatok.export.tiny DIR")
    write_tiny(Path(sys.argv[1]))
