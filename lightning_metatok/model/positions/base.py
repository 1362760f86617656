"""The one interface of all positional encodings: four hooks, each of which can be told to drop positions.

    position ids -> embed (added to x) -> rotate (q, k) -> score (bias or transform of the scores)

A family overrides the hooks it needs and says so in its class attributes. Every hook takes `keep_BT`: where
it is False the position is dropped (embed adds 0, rotate is the identity, a bias is 0), and None keeps all.
That argument is the "No Pos" ablation of arXiv 2509.16278, so every encoding has it.
"""

from typing import Any, ClassVar

from torch import Tensor, nn


class PositionEncoding(nn.Module):
    """An encoding that does nothing; families override its hooks. One instance serves all layers."""

    embeds: ClassVar[bool] = False
    rotates: ClassVar[bool] = False
    transforms_scores: ClassVar[bool] = False
    needs_even_head_dim: ClassVar[bool] = False

    max_positions: int | None = None
    """Number of positions that exist, where a table limits them; None where any position works."""

    def embed(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Tensor | None:
        """Return what is added to the token embeddings, [B, T, D], or None."""
        return None

    def prepare(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Any:
        """Compute once a forward pass what `apply` needs in every layer."""
        return None

    def apply_to(self, q_BNTH: Tensor, k_BNTH: Tensor, prepared: Any) -> tuple[Tensor, Tensor]:
        """Return q and k transformed by what `prepare` made."""
        return q_BNTH, k_BNTH

    def rotate(
        self, q_BNTH: Tensor, k_BNTH: Tensor, position_ids_BT: Tensor, keep_BT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return q and k with their positions in them, [B, N, T, H] each."""
        return self.apply_to(q_BNTH, k_BNTH, self.prepare(position_ids_BT, keep_BT))

    def score(self, scores_BNTT: Tensor, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Tensor:
        """Return the scaled scores with positions in them.

        Ids and keep are those of the keys. In cached generation the scores have fewer rows than columns: the
        rows are then the last positions.
        """
        return scores_BNTT
