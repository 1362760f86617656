"""Whether a row is read at once, or segment by segment with memory between: an axis, one class a choice.

    none    one pass over the row
    rmt     a pass a segment; what it writes into its memory, the next one reads

A choice is built from its options alone and says what cannot stand beside it; the transformer that it names is the loop
(`model.recurrent`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from lightning_metatok.errors import UserError
from lightning_metatok.model.axis import Axis
from lightning_metatok.options import at_least

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig
    from lightning_metatok.model.transformer import MetaTransformer


class Recurrence:
    """A row is read at once."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What it cannot do (`config.FEATURES`), and why, as a clause."""

    keeps: ClassVar[str | None] = None
    """What generation keeps, where that does not follow from the pattern."""

    carries = False
    """Whether, in training, a row goes on where the same row of the batch before ended."""

    def kind(self) -> "type[MetaTransformer]":
        """Return the transformer that reads so."""
        from lightning_metatok.model.transformer import MetaTransformer

        return MetaTransformer

    def check(self, config: "TransformerConfig") -> None:
        """Raise `UserError` when it cannot work in such a model; the message names both sides."""

    def check_rows(self, longest: int, *, even: bool, contiguous: bool) -> None:
        """Raise `UserError` when it cannot work on the rows of these data.

        Args:
            longest: positions of the longest row. even: whether all are as long. contiguous: whether, in training, a
                row goes on where the same row of the batch before ended.
        """


class RMT(Recurrence):
    """Segments, each between `memory` tokens that it reads and writes; gradients go `bptt` segments back.

    With `carry`, in training, what a row has written is what the same row of the next batch reads, without a gradient.
    """

    cannot: ClassVar[Mapping[str, str]] = {
        "ahead": "what a segment reads of the others was written before it",
        "documents": "its memory goes on from one to the next",
        "probes": "a row is several passes, each with positions of memory beside those of the row",
    }
    keeps = "its memory and the segment at hand"

    def __init__(
        self,
        *,
        segment: Annotated[int, at_least(1)] = 64,
        memory: Annotated[int, at_least(1)] = 4,
        bptt: Annotated[int, at_least(1)] = 3,
        carry: bool = False,
    ) -> None:
        self.segment, self.memory, self.bptt, self.carries = segment, memory, bptt, carry

    def kind(self) -> "type[MetaTransformer]":
        from lightning_metatok.model.recurrent import RecurrentTransformer

        return RecurrentTransformer

    def check(self, config: "TransformerConfig") -> None:
        if self.segment > config.max_positions:
            expected = f"no more than model.max_positions={config.max_positions}, the longest row of training"
            AXIS.refuse("segment", self.segment, expected)
        family = config.family
        random = config.position_options.get("random_start")
        for wrong, key, value, expected in (
            (config.built_pattern.needs_mask, "pattern", config.pattern, "'causal', as all of a segment reads memory"),
            (
                config.built_mechanism.transforms_scores,
                "mechanism",
                config.mechanism,
                "one that leaves scores alone, as memory belongs to no chunk",
            ),
            (family.needs_task_ids, "position", config.position, "one that counts, as each segment is counted anew"),
            (bool(config.separators), "separators", config.separators, "none, as memory is no token"),
            (bool(random), "position_options.random_start", random, "false, as each segment is counted anew"),
        ):
            if wrong:
                raise UserError(
                    f"model.{key}={value!r}: expected {expected} with model.recurrence={config.recurrence!r}"
                )

    def check_rows(self, longest: int, *, even: bool, contiguous: bool) -> None:
        if self.carries and not contiguous:
            expected = (
                "false, or text with data.contiguous=true: memory goes on from block to block, and shuffled blocks or "
                "prompts do not"
            )
            AXIS.refuse("carry", self.carries, expected)
        if self.segment > longest:
            AXIS.refuse("segment", self.segment, f"no more than the {longest} positions of the longest row")
        if even and longest % self.segment:
            expected = (
                f"a divisor of the {longest} positions of a block; meta-tokens count, and data.meta_length=within "
                "makes room for them inside of data.block_size"
            )
            AXIS.refuse("segment", self.segment, expected)


RECURRENCES: dict[str, type[Recurrence]] = {"none": Recurrence, "rmt": RMT}
AXIS = Axis("recurrence", Recurrence, RECURRENCES)
build = AXIS.build
