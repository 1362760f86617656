"""What this project's speed is compared with, one a file: the same shape, made by other people's code.

nanogpt         the plain loop, written here
huggingface     GPT-2 of transformers
litgpt          GPT of litgpt, with rotary positions
x_transformers  the decoder of x-transformers, with rotary positions

`pip install -e '.[bench]'`, and litgpt with `--no-deps`: it pins older jsonargparse and huggingface_hub, which its
model does not use. What is not installed is left out, and said.
"""

from collections.abc import Mapping
from importlib import import_module

from torch import nn

from benchmarks.peers.base import Greedy, Loss

NAMES = ("nanogpt", "huggingface", "litgpt", "x_transformers")


def build(name: str, shape: Mapping[str, int]) -> tuple[nn.Module, Loss, Greedy] | None:
    """A peer of this shape; None, and a line that says why, where it cannot be had."""
    try:
        module = import_module(f"benchmarks.peers.{name}")
    except ImportError as missing:
        print(f"{name} left out: {missing}")
        return None
    built: tuple[nn.Module, Loss, Greedy] = module.build(shape)
    return built
