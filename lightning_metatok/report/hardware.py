"""What a run computes with: GPUs by their data sheets, the bytes of a number, and what joins the GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_metatok.errors import UserError, nearest

USABLE = 0.9
"""Share of a GPU's memory that a run can fill: the rest is the CUDA context, libraries and gaps."""


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet: dense bf16 FLOP/s, bytes of memory, bytes/s to its neighbours (one direction)."""

    peak_flop_per_s: float
    memory_bytes: float
    link_bytes_per_s: float


DEVICES: Mapping[str, Device] = {
    "a10": Device(125e12, 24e9, 32e9),  # PCIe 4.0 x16
    "a100": Device(312e12, 80e9, 300e9),  # SXM, NVLink 3
    "a100-40gb": Device(312e12, 40e9, 300e9),
    "l40s": Device(362e12, 48e9, 32e9),  # PCIe 4.0 x16
    "h100": Device(989e12, 80e9, 450e9),  # SXM, NVLink 4
    "h100-pcie": Device(756e12, 80e9, 64e9),  # PCIe 5.0 x16
    "h200": Device(989e12, 141e9, 450e9),
    "b200": Device(2250e12, 180e9, 900e9),  # NVLink 5
}
"""NVIDIA's data sheets; where these state a rate with sparsity, half of it, and of NVLink's two directions one."""


def device(name: str) -> Device:
    """Return a GPU by name.

    Raises:
        UserError: an unknown one; the nearest is named.
    """
    if name.lower() not in DEVICES:
        raise UserError(f"--device={name}: expected one of {', '.join(DEVICES)}{nearest(name.lower(), DEVICES)}")
    return DEVICES[name.lower()]


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
    stream: int
    """An element of the residual stream, the norms' input."""
    work: int
    """An element of what matrix products read and write."""


MIXED = Format(weight=4, copy=2, gathered=2, gradient=4, moments=8, stream=4, work=2)
TRUE = Format(weight=2, copy=0, gathered=2, gradient=2, moments=4, stream=2, work=2)
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
