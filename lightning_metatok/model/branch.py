"""A branch of a block: one line of its sum. Blocks are lists of these, and all else is keyed by their names.

    x = x + f(norm(x))        norm="pre"
    x = norm(x + f(x))        norm="post"

Self-attention and the MLP are two; a mechanism adds others between them. Plans, memories of generation, recordings,
interventions, dropped positions, FLOPs and fresh weights know a branch by its `name` alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Branch:
    """What a block must know of a branch. What it works on in a forward pass, its plan says (`attention.plan`)."""

    name: str

    module: str
    """Its module in the block, and in the names of its weights: f, called as ``f(rows, plan=, memory=)``."""

    norm: str
    """Its norm, likewise."""

    label: str
    """What it is called in tables."""

    added: bool = True
    """Whether it is a mechanism's."""

    remembers: bool = True
    """Whether it keeps keys and values in generation."""


SELF_ATTENTION = Branch("self_attention", "attention", "norm_attention", "self-attention", added=False)
MLP = Branch("mlp", "mlp", "norm_mlp", "MLP", added=False, remembers=False)
EMBEDDING = "embedding"
"""What stands before all branches; where positions are added it is a place that they can be dropped at, too."""
EVERYWHERE = "both"
"""In place of a branch: all of them."""
