"""GPUs by their data sheets: dense bf16 peak, memory, link; and which of them this process computes on.

Where a data sheet states a rate with sparsity, half of it counts, and of NVLink's two directions one. Lightning's own
table (`lightning.fabric.utilities.throughput`) has rates with sparsity for some GPUs and shader rates for others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_metatok.errors import UserError, nearest


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet: dense bf16 FLOP/s, bytes of memory, bytes/s to its neighbours (one direction)."""

    peak_flop_per_s: float
    memory_bytes: float
    link_bytes_per_s: float


DEVICES: Mapping[str, Device] = {
    "a10": Device(125e12, 24e9, 32e9),  # PCIe 4.0 x16
    "a10g": Device(70e12, 24e9, 32e9),  # its own sheet, for AWS's G5: 70, 140 with sparsity
    "a100": Device(312e12, 80e9, 300e9),  # SXM, NVLink 3
    "a100-40gb": Device(312e12, 40e9, 300e9),
    "l4": Device(121e12, 24e9, 32e9),  # 242 with sparsity
    "l40s": Device(362e12, 48e9, 32e9),  # PCIe 4.0 x16
    "rtx-4090": Device(165.2e12, 24e9, 32e9),  # 165.2, 330.4 with sparsity
    "h100": Device(989e12, 80e9, 450e9),  # SXM, NVLink 4
    "h100-pcie": Device(756e12, 80e9, 64e9),  # PCIe 5.0 x16
    "h100-nvl": Device(835.5e12, 94e9, 300e9),  # 1,671 with sparsity; bridges of 600 GB/s, both directions
    "h200": Device(989e12, 141e9, 450e9),
    "b200": Device(2250e12, 180e9, 900e9),  # NVLink 5
}
"""NVIDIA's data sheets; of the RTX 4090 the white paper of its architecture, with sums in float32."""
OTHERS = frozenset({"laptop", "d", "mig", "max", "ada"})
"""Words that stand behind the name of one GPU and make it that of a smaller one."""


def device(name: str) -> Device:
    """Return a GPU by name.

    Raises:
        UserError: an unknown one; the nearest is named.
    """
    if name.lower() not in DEVICES:
        raise UserError(f"--device={name}: expected one of {', '.join(DEVICES)}{nearest(name.lower(), DEVICES)}")
    return DEVICES[name.lower()]


def named(name: str) -> Device | None:
    """Return the GPU that the driver calls `name`, such as "NVIDIA A100-SXM4-80GB"; None: its peak is not known here.

    The longest name of `DEVICES` whose words it has.
    """
    words = set(re.split(r"[\s-]+", name.lower()))
    if words & OTHERS:
        return None
    found = [known for known in DEVICES if set(known.split("-")) <= words]
    best = max(found, key=len, default=None)
    # Of these the other forms have other rates, which the table must name.
    if best == "h200" and "nvl" in words:
        return None
    return None if best is None else DEVICES[best]
