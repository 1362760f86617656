"""Encodings that are added to the embeddings: sinusoids against loops, random starts inside the table, coupled ids."""

import math
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig, generate, positions
from tests.model.helpers import batch, tiny
from tests.model.positions.naive import IDS, KEEP

SIZES = {"n_layers": 2, "n_heads": 1, "head_dim": 9, "d_model": 9, "max_positions": 100}


def build(name: str, **options: Any) -> Any:
    return positions.build(name, **SIZES, **options)


def test_sinusoids_equal_loops_at_an_odd_width() -> None:
    for options, base, size in (({}, 10000.0, 1.0), ({"base": 50.0, "scaling": "downscaled"}, 50.0, 1 / 3)):
        expected = torch.zeros(2, 7, 9)
        for b in range(2):
            for t in range(7):
                for d in range(9):
                    angle = int(IDS[b, t]) / base ** (2 * (d // 2) / 9)
                    expected[b, t, d] = size * (math.cos(angle) if d % 2 else math.sin(angle))
        embed = build("sinusoidal", **options).embed
        torch.testing.assert_close(embed(IDS, None), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(embed(IDS, KEEP), expected * KEEP.unsqueeze(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("scaling", "std", "times"),
    [("opennmt", math.sqrt(2 / (4000 + 64)), 8), ("noscale", 1, 1), ("downscaled", 1 / 8, 1), ("plain", 0.02, 1)],
)
def test_token_embeddings_start_at_the_size_that_the_scaling_says(scaling: str, std: float, times: int) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(1, 1, 64, 4000, position="sinusoidal", position_options={"scaling": scaling})
    model = MetaTransformer(config)
    assert model.embedding.weight.std().item() == pytest.approx(std, rel=0.02)
    assert model.positions.token_scale == times


def test_starts_are_random_in_training_only_and_leave_rows_inside_the_table() -> None:
    learned = build("learned", random_start=True)
    with torch.no_grad():
        learned.table.weight[:, 0] = torch.arange(100.0)
    ids = torch.stack((torch.arange(7), torch.arange(7) * 16)).repeat(2000, 1)
    read = learned.embed(learned.moved(ids), None)[..., 0]
    starts = (read - ids)[:, :1].long().squeeze(1)
    assert torch.equal(read, (ids + starts[:, None]).float())  # one start for a whole row
    short, long = starts[0::2], starts[1::2]
    assert (short.min(), short.max(), long.min(), long.max()) == (0, 93, 0, 3)
    # Of 2,000 draws of four, 500 each: 100 is five standard deviations.
    assert (long.bincount() - 500).abs().max() < 100
    assert torch.equal(learned.eval().moved(ids), ids)
    always = build("learned").train()
    assert torch.equal(always.moved(ids), ids)
    assert torch.equal(always.embed(ids, None), always.table.weight[ids])


@pytest.mark.parametrize("name", ["learned", "coupled"])
def test_a_fixed_start_moves_what_is_read_in_evaluation_alone(name: str) -> None:
    encoding = build(name, random_start=True, start=9)
    assert encoding.max_positions == 91
    assert torch.equal(encoding.eval().embed(IDS, None), encoding.table.weight[IDS + 9])
    assert torch.equal(encoding.train().embed(IDS, None), encoding.table.weight[IDS])
    with pytest.raises(UserError, match=r"position_options\.start=100: expected less than max_positions=100"):
        build(name, start=100)


def test_starts_in_training_use_the_whole_table_and_evaluation_what_is_behind_the_fixed_one() -> None:
    model = tiny(position="learned", position_options={"random_start": True, "start": 60}).train()
    (tokens_BT, meta_mask_BT), last = batch(), torch.full((1, 1), 63)
    assert model(tokens_BT[:1, :1], meta_mask_BT[:1, :1], last).isfinite().all()
    with pytest.raises(UserError, match=r"model\.max_positions=64, less position_options\.start=60"):
        model.eval()(tokens_BT[:1, :1], meta_mask_BT[:1, :1], last)


def test_predicted_ids_count_from_the_fixed_start() -> None:
    coupled = build("coupled", predict=True, start=30)
    with torch.no_grad():
        coupled.head.weight.zero_()
        coupled.head.weight[37] = 1.0
    assert coupled.eval().id_logits(torch.ones(1, 1, 9)).argmax(-1).item() == 7
    assert coupled.train().id_logits(torch.ones(1, 1, 9)).argmax(-1).item() == 37


def test_a_row_as_long_as_the_table_starts_at_its_beginning() -> None:
    learned = build("learned", random_start=True).train()
    ids = torch.arange(100)[None]
    assert torch.equal(learned.moved(ids), ids)
    dropped = torch.zeros(1, 100, dtype=torch.bool)
    assert torch.equal(learned.embed(ids, dropped), torch.zeros(1, 100, 9))


def test_coupled_reads_its_table_at_the_ids_of_the_task() -> None:
    coupled = build("coupled").eval()
    assert torch.equal(coupled.embed(IDS, KEEP), coupled.table.weight[IDS] * KEEP.unsqueeze(-1))
    model, (tokens_BT, meta_mask_BT) = tiny(position="coupled"), batch()
    ids_BT = torch.randint(64, tokens_BT.shape)
    assert not torch.allclose(model(tokens_BT, meta_mask_BT, ids_BT), model(tokens_BT, meta_mask_BT))
    with pytest.raises(UserError, match=r"T=65 is larger than model\.max_positions=64"):
        model(tokens_BT, meta_mask_BT, ids_BT.fill_(64))


@torch.no_grad()
def test_predicted_ids_are_fed_back_and_change_no_logit_where_ids_are_given() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(position="coupled", position_options={"predict": True}), batch()
    ids_BT = torch.randint(64, tokens_BT.shape)
    out = generate(model, tokens_BT, meta_mask_BT, ids_BT, max_new_tokens=6, temperature=0)
    grown, mask, ids, fed = tokens_BT, meta_mask_BT, ids_BT, []
    for _ in range(6):
        hidden = model(grown, mask, ids, return_hidden=True)[:, -1:]
        grown = torch.cat((grown, model.logits(hidden).argmax(-1)), dim=1)
        mask = torch.nn.functional.pad(mask, (0, 1))
        ids = torch.cat((ids, model.positions.id_logits(hidden).argmax(-1)), dim=1)
        fed.append(ids[:, -1])
    assert torch.equal(out, grown)
    assert len(set(torch.stack(fed).flatten().tolist())) > 3  # not what counting on would give
    plain = tiny(position="coupled")
    weights = {name: weight for name, weight in model.state_dict().items() if name != "positions.head.weight"}
    plain.load_state_dict(weights)
    assert torch.equal(plain(tokens_BT, meta_mask_BT, ids_BT), model(tokens_BT, meta_mask_BT, ids_BT))
