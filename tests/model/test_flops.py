"""FLOPs are those that PyTorch counts."""

from typing import Any

import pytest
import torch

from tests.model.helpers import tiny


@pytest.mark.parametrize(
    ("arm", "seconds", "dense"),
    [
        ({}, 2, False),
        ({"mechanism_options": {"layers": [1]}}, 1, False),
        ({"mechanism": "matched"}, 2, True),
        ({"mechanism_options": {"fill": -1e4}}, 2, True),
    ],
    ids=str,
)
def test_flops_count_matrix_products_as_pytorch_does(arm: dict[str, Any], seconds: int, dense: bool) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny(d_model=32, vocab_size=64, attention_backend="reference", **arm).train()
    tokens_BT = torch.randint(64, (2, 40))
    meta_mask_BT = torch.zeros(2, 40, dtype=torch.bool)
    meta_mask_BT[:, ::10] = True
    with FlopCounterMode(display=False) as counter:
        model(tokens_BT, meta_mask_BT).sum().backward()
    # The reference computes all T keys a query where causal attention needs (T + 1) / 2 on average.
    layers, d_model, length, n_metas = 2, 32, 40, 4
    n_rows = length if dense else n_metas  # a dense second attention is over all tokens
    wasted = 6 * d_model * 2 * (layers * length * (length - 1) + seconds * n_rows * (n_rows - 1))
    assert counter.get_total_flops() - wasted == pytest.approx(80 * model.flops_per_token(40, 0.1), rel=1e-12)
