"""No positional encoding: the causal mask alone tells positions apart (Kazemnejad et al. 2023)."""

from lightning_metatok.model.positions.base import PositionEncoding, Sizes


class NoPositions(PositionEncoding):
    """Every hook is the identity. The sizes are taken, and unused, so that all families are built alike."""

    equation = "the causal mask alone"
    claims = "small tasks, yes; text, no"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
