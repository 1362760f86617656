"""A GPU is known by what its driver calls it, and one that is not, is none."""

import pytest

from lightning_metatok.devices import DEVICES, device, named
from lightning_metatok.errors import UserError


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla T4", None),
    ],
)
def test_names_of_drivers(driver: str, name: str | None) -> None:
    assert named(driver) is (None if name is None else DEVICES[name])


@pytest.mark.parametrize(
    ("name", "peak"), [("a10g", 70e12), ("l4", 242e12 / 2), ("h100-nvl", 1671e12 / 2), ("rtx-4090", 330.4e12 / 2)]
)
def test_peaks_are_dense(name: str, peak: float) -> None:
    """Half of what the data sheets state with sparsity."""
    assert device(name).peak_flop_per_s == peak


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    assert device("H100").peak_flop_per_s == 989e12
    with pytest.raises(UserError, match=r"--device=h10: expected one of a10, .*did you mean 'h100'"):
        device("h10")
