"""What a run computes with, beside its GPUs (`lightning_metatok.devices`): bytes of a number, and the network."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_metatok.errors import UserError

USABLE = 0.9
"""Share of a GPU's memory that a run can fill: the rest is the CUDA context, libraries and gaps."""


@dataclass(frozen=True)
class Format:
    """Bytes of a number, by what it stands for."""

    weight: int
    copy: int
    """Second copy of a weight that autocast makes; 0: none."""
    gathered: int
    """A weight as fsdp2 sends it."""
    gradient: int
    moments: int
    """Both moments of AdamW."""
    dtype: str
    """Of the weights that train, and of what the optimiser keeps; torch's name."""
    stream: int
    """An element of the residual stream, the norms' input."""
    work: int
    """An element of what matrix products read and write."""


MIXED = Format(weight=4, copy=2, gathered=2, gradient=4, moments=8, dtype="float32", stream=4, work=2)
TRUE = Format(weight=2, copy=0, gathered=2, gradient=2, moments=4, dtype="bfloat16", stream=2, work=2)
FORMATS: Mapping[str, Format] = {
    "auto": MIXED,  # what `auto` is on every GPU in DEVICES
    "bf16-mixed": MIXED,
    "16-mixed": MIXED,
    "bf16-true": TRUE,
    "16-true": TRUE,
}
"""By `trainer.precision`. Others do not reach a bf16 peak."""


def format_of(precision: str) -> Format:
    """Return the bytes of `trainer.precision`.

    Raises:
        UserError: a precision that does not compute in 16 bits.
    """
    if precision not in FORMATS:
        raise UserError(
            f"trainer.precision={precision}: expected one of {', '.join(FORMATS)}, for the peaks are those of 16 bits"
        )
    return FORMATS[precision]


@dataclass(frozen=True)
class Network:
    """What carries gradients and weights, in bytes/s of one direction as a ring collective reaches them.

    Attributes:
        gpus_per_node: GPUs that `link_bytes_per_s` joins.
        link_bytes_per_s: of a GPU, inside a node. node_bytes_per_s: of a node, all its adapters together.
        latency_s: of one hop of a ring. hidden: share of the traffic that can run beside computation.
    """

    gpus_per_node: int
    link_bytes_per_s: float
    node_bytes_per_s: float
    latency_s: float
    hidden: float

    def bandwidth(self, n: int) -> float:
        """Bytes/s of a ring through n GPUs: that of its slowest piece. One flow enters a node and one leaves it."""
        return self.link_bytes_per_s if n <= self.gpus_per_node else min(self.link_bytes_per_s, self.node_bytes_per_s)
