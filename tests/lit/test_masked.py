"""The masked objective in the Lightning shell: what is scored, what it costs, and that arms are scored on the same."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lightning_metatok.data import remove_meta
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule, TaskDataModule
from lightning_metatok.lit.callbacks.arm_card import arm_card
from lightning_metatok.lit.data.objective import check_objective

MASKED: dict[str, Any] = {"objective": "masked"}
ENCODER: dict[str, Any] = {"mechanism": "omninet", "pattern": "bidirectional"}


def test_a_hidden_token_is_scored_where_it_stands(make_data: Any, make_model: Any) -> None:
    data, model = make_data(**MASKED), make_model(**ENCODER)
    batch = next(iter(data.val_dataloader()))
    hidden_BT = batch.targets_BT >= 0
    assert (hidden_BT.sum(dim=1) == 6).all()
    assert (batch.tokens_BT[hidden_BT] == data.tokenizer.mask_id).float().mean() > 0.5
    with torch.no_grad():
        nll_BT = model.eval().nll(batch)
        logits_BTV = model.model(batch.tokens_BT, batch.meta_mask_BT, batch.position_ids_BT)
    loss = F.cross_entropy(logits_BTV[hidden_BT], batch.targets_BT[hidden_BT], reduction="none")
    torch.testing.assert_close(nll_BT[hidden_BT], loss)
    assert not nll_BT[~hidden_BT].any()


def test_every_arm_is_scored_on_the_hidden_tokens_of_the_plain_one(make_data: Any) -> None:
    plain = make_data(meta_fraction=0.0, **MASKED)
    for arm in ({}, {"meta_fraction": 0.5}, {"meta_placement": "punctuation"}):
        other = make_data(**arm, **MASKED)
        assert other.scored_text() == plain.scored_text()
        assert other.scored_text() != make_data(**arm).scored_text()
        for multiple in (1, 2):
            for one, two in zip(
                *(data.context_batches(multiple, windows=3, largest=2) for data in (plain, other)), strict=True
            ):
                assert torch.equal(remove_meta(two.targets_BT, two.meta_mask_BT), one.targets_BT)


def test_it_costs_a_head_at_hidden_tokens_alone(make_data: Any, make_model: Any) -> None:
    data, model = make_data(meta_fraction=0.0, **MASKED), make_model(**ENCODER)
    assert (data.scored_per_prompt, data.counts(0).scored) == (6, 24)
    cards = [arm_card(model.model, one) for one in (data, make_data(meta_fraction=0.0))]
    saved = cards[1]["flops_per_token"] - cards[0]["flops_per_token"]
    assert saved == pytest.approx(6 * 320 * 16 * 34 / 40)
    assert cards[0]["arm"] == "omninet (no marks, every 2, bidirectional)"


def test_the_objective_and_what_a_token_sees_must_fit(make_model: Any) -> None:
    encoder, decoder = make_model(**ENCODER).config, make_model().config
    masked, following = (MetaTokenDataModule(objective=objective).config for objective in ("masked", "next"))
    check_objective(encoder, masked)
    check_objective(decoder, following)
    with pytest.raises(UserError, match=r"^data.objective='next': model.pattern='bidirectional' cannot predict the"):
        check_objective(encoder, following)
    with pytest.raises(UserError, match=r"^data.objective='masked': expected model.pattern=bidirectional.*'causal'$"):
        check_objective(decoder, masked)
    with pytest.raises(UserError, match=r"^data.objective='masked': expected next with data.task"):
        TaskDataModule("list_recall", objective="masked")


def test_what_reads_prompts_in_both_directions_is_scored_on_answers_alone(make_model: Any) -> None:
    reader = make_model(mechanism="none", pattern="prefix_lm").config
    masked, following = (MetaTokenDataModule(objective=objective).config for objective in ("masked", "next"))
    check_objective(reader, following, answers_only=True)
    with pytest.raises(
        UserError, match=r"^data.objective='next': model.pattern='prefix_lm' cannot predict the next token within"
    ):
        check_objective(reader, following)
    with pytest.raises(
        UserError, match=r"^data.objective='masked': expected model.pattern=bidirectional.*'prefix_lm'$"
    ):
        check_objective(reader, masked)
