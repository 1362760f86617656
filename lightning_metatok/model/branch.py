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

    @property
    def behind(self) -> str:
        """The module of the block that the stream passes through behind it, unchanged, for hooks to see and change."""
        return f"behind_{self.name}"


SELF_ATTENTION = Branch("self_attention", "attention", "norm_attention", "self-attention", added=False)
MLP = Branch("mlp", "mlp", "norm_mlp", "MLP", added=False, remembers=False)
EMBEDDING = "embedding"
"""What stands before all branches; where positions are added it is a place that they can be dropped at, too."""
EVERYWHERE = "both"
"""In place of a branch: all of them."""


@dataclass(frozen=True)
class Place:
    """Which states of a layer are meant; the default: the residual stream that enters it.

    Attributes:
        branch: the stream behind the branch of this name. None: the one that enters the layer.
        values: not the stream, but the value vectors of that branch, which is an attention; heads side by side.
    """

    branch: str | None = None
    values: bool = False

    def __post_init__(self) -> None:
        assert not self.values or self.branch is not None, "values of which attention?"

    def __str__(self) -> str:
        return "before" if self.branch is None else f"{'values_of' if self.values else 'after'}_{self.branch}"


BEFORE = Place()
