"""The one interface of all positional encodings: four hooks, each of which can be told to drop positions.

    position ids -> embed (added to x) -> rotate (q, k) -> score (bias or transform of the scores)

A family overrides the hooks it needs and says so in its class attributes. Every hook takes `keep_BT`: where
it is False the position is dropped (embed adds 0, rotate is the identity, a bias is 0), and None keeps all.
That argument is the "No Pos" ablation of arXiv 2509.16278, so every encoding has it.

One instance serves all layers and both attentions. Where a family has parameters a layer, the two attentions of a
layer share them: a distance means the same in both, and a plain model's positions fit a model with meta-attention.
`MetaTransformer` draws the weights of every nn.Linear and nn.Embedding anew, as nanoGPT does; parameters that want
another start are nn.Parameters of the family's own, and `draw` gives it to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_metatok.model.start import Start


@dataclass(frozen=True)
class Sizes:
    """The model's sizes that a family may need."""

    n_layers: int
    """Layers with weights of their own: 1 where all layers share theirs."""

    n_heads: int
    head_dim: int
    d_model: int
    max_positions: int
    """Longest sequence trained on."""


@dataclass(frozen=True)
class Rows:
    """A block of rows of the scores: queries that stand next to each other, over the first K places."""

    first: int
    """Place of the first of them among the keys."""

    q_BNQH: Tensor
    k_BNKH: Tensor
    """As `apply_to` returned them, not scaled."""

    mask: Tensor | None = None
    """These rows of the mask, as in `attention.backends.reference.attend`; None: causal."""


class PositionEncoding(nn.Module):
    """An encoding that does nothing; families override its hooks, and take `Sizes` and their options (`options`)."""

    # -- for the table of encodings (docs/tables.py)

    equation: ClassVar[str] = ""
    """With i the query's position, j the key's, d their distance, N heads, D the width; "": the class's first line."""
    learned: ClassVar[str] = "no"
    """How many parameters it has."""
    claims: ClassVar[str] = "no"
    """Whether its paper says that it extrapolates beyond the trained length."""

    # -- what it does

    embeds: ClassVar[bool] = False
    rotates: ClassVar[bool] = False
    transforms_scores: bool = False
    needs_even_head_dim: ClassVar[bool] = False

    free_after_training: ClassVar[frozenset[str]] = frozenset()
    """Options that a trained checkpoint may be read with other values of: those that extend its context."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What the family cannot do, of "cache", "compile", "documents" (packed ones that do not see each other) and
    "ahead" (later tokens), and why, as a clause. Asked before anything runs (`TransformerConfig.check_can`)."""

    needs_task_ids: ClassVar[bool] = False
    """Whether position ids must be those that a task gives, not 0, 1, 2, ..."""

    draws_in_training: bool = False
    """Whether `moved` draws from torch's generator in training mode, as dropout does."""

    needs_all_keys: bool = False
    """Whether a score depends on keys beside its own, so that none may be forgotten in generation."""

    predicts_ids: bool = False
    """Whether `id_logits` says which position the next token has, for tokens that are generated."""

    fixes_max_positions: bool = False
    """Whether what it computes depends on `Sizes.max_positions`, though no table limits the positions."""

    max_positions: int | None = None
    """Number of positions that exist, where a table limits them; None where any position works."""

    token_scale: float = 1.0
    """What the token embeddings are multiplied by before `embed` is added."""

    @classmethod
    def transforms(cls, options: Mapping[str, Any]) -> bool:
        """Whether it transforms scores with these options; an instance then has `transforms_scores` set."""
        return cls.transforms_scores

    def draw(self, start: Start) -> None:
        """Draw the family's own parameters; the model asks for it once all are built."""

    def initialise_tokens(self, weight_VD: Tensor, start: Start) -> None:
        """Draw the token embeddings anew, for a family that wants another start than nanoGPT's normal(0, 0.02)."""

    def moved(self, position_ids_BT: Tensor) -> Tensor:
        """The position ids to read a batch with: in training, a family may move them at random."""
        return position_ids_BT

    def id_logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., max_positions] of the next token's position id, where the family `predicts_ids`."""
        raise NotImplementedError

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
        self,
        q_BNTH: Tensor,
        k_BNTH: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return q and k with their positions in them, [B, N, T, H] each."""
        return self.apply_to(q_BNTH, k_BNTH, self.prepare(position_ids_BT, keep_BT))

    def score(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        *,
        layer: int = 0,
        rows: Rows | None = None,
    ) -> Tensor:
        """Return the scaled scores q k / sqrt(H), not yet masked, with positions in them.

        Args:
            scores_BNQK: scores of a block of queries; columns are the first K of the T places.
            position_ids_BT: positions of all keys; may be one row for all samples.
            keep_BT: False where a key's position is dropped, and that of the query at the same place.
            layer: which layer's parameters to use, from 0 to `Sizes.n_layers` - 1.
            rows: where the block stands; None: the queries are the last Q of K = T places, as in a full pass and in
                cached generation. Only for a family that looks at q, k or the mask must it be given.

        Gradients may go to the scores, to q and k, and to the family's own parameters, to nothing else.
        What stands in a row must not depend on what its query may not see, nor on which other rows the block has:
        rows come alone in cached generation, and with fewer columns where scores are computed block by block.
        """
        return scores_BNQK
