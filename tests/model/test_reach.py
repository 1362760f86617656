"""Reach: what a model's last token depends on, by its gradient."""

from typing import Any

import pytest
import torch

from lightning_metatok.model.attention.patterns import Causal, ChunkMeta, Window
from lightning_metatok.model.attention.reach import Reach, reach
from tests.model.helpers import tiny

EXTRA_T = (torch.arange(30) % 6) == 5


def test_layers_of_a_window_reach_one_window_each() -> None:
    found = reach([[Window(w=3)]] * 2, torch.zeros(20, dtype=torch.bool))
    assert found == Reach(layer=2, text=4, all=4, n=19)
    assert reach([[Causal()]], torch.zeros(20, dtype=torch.bool)) == Reach(19, 19, 19, 19)


def test_extra_tokens_that_see_their_chunk_alone_reach_it_and_no_further() -> None:
    """Through one layer a token of chunk 4 sees extra tokens alone; through two, the text that these have seen."""
    assert reach([[ChunkMeta(extra_sees="own")]], EXTRA_T[:29]).all == 4
    assert reach([[ChunkMeta(extra_sees="own")]] * 2, EXTRA_T[:29]) == Reach(layer=4, text=4, all=24, n=24)


@pytest.mark.parametrize(
    "arm",
    [
        {"pattern": "window", "pattern_options": {"w": 4}},
        {"pattern": "window", "pattern_options": {"w": 4}, "mechanism": "none"},
        {"pattern": "window_meta", "pattern_options": {"w": 2}, "mechanism": "none"},
        {"pattern": "window_meta", "pattern_options": {"w": 2, "extra_sees": "own"}, "mechanism": "none"},
        {"pattern": "chunk_meta", "mechanism": "none", "n_layers": 1},
        {"pattern": "sinks_window", "pattern_options": {"n": 1, "w": 3}, "mechanism": "none"},
        {"pattern": "gist"},
        {"pattern": "window", "pattern_options": {"w": 3}, "mechanism": "matched"},
        {"pattern": "window", "pattern_options": {"w": 3}, "mechanism_options": {"layers": [1]}},
    ],
    ids=str,
)
def test_the_gradient_comes_from_as_far_as_the_rule_reaches(arm: dict[str, Any]) -> None:
    model, extra_T = tiny(**arm), EXTRA_T[:29]
    embedded: list[torch.Tensor] = []

    def keep(_: Any, __: Any, x_BTD: torch.Tensor) -> torch.Tensor:
        embedded.append(x_BTD.detach().requires_grad_())
        return embedded[0]

    model.embedding.register_forward_hook(keep)
    model(torch.arange(29)[None] % 7, extra_T[None])[0, -1].sum().backward()
    assert embedded[0].grad is not None
    touched_T = embedded[0].grad[0].abs().sum(dim=-1) > 0
    found = reach(model.rules(), extra_T)
    assert found.all == int((touched_T & ~extra_T)[:28].sum())
