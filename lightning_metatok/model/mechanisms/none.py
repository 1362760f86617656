"""Extra tokens are ordinary tokens (pause tokens, Goyal et al. 2024, arXiv 2310.02226), or there are none."""

from lightning_metatok.model.mechanisms.base import Mechanism


class NoMechanism(Mechanism):
    """Nothing is added: the blocks of GPT-2."""
