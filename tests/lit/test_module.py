"""The loss scores source targets only, and a checkpoint must fit the model and the data."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import lightning
import pytest
import torch

from lightning_metatok.data import next_token_targets
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.lit.targets import summed
from lightning_metatok.model.positions import RotaryPositions


def _batch(data: Any) -> Any:
    return data.context_batches(1, windows=2, largest=2)[0]


def test_the_id_behind_a_target_that_is_a_meta_token_changes_neither_loss_nor_gradient(
    make_data: Any, make_model: Any
) -> None:
    """Paper checklist 7: meta-tokens are never scored."""
    data, model = make_data(), make_model()
    batch = _batch(data)
    losses, gradients = [], []
    for stand_in in (data.tokenizer.meta_id, 5):
        ids = batch.tokens_BT.masked_fill(batch.meta_mask_BT, stand_in)
        model.zero_grad()
        nll = model.nll(replace(batch, targets_BT=next_token_targets(ids, batch.meta_mask_BT)))
        nll.sum().backward()
        losses.append(nll.detach())
        gradients.append(model.model.embedding.weight.grad.clone())
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
    n_meta_targets = int(batch.meta_mask_BT[:, 1:].sum())
    n_rows, length = batch.tokens_BT.shape
    assert int((batch.targets_BT >= 0).sum()) == n_rows * (length - 1) - n_meta_targets


def test_nll_is_the_cross_entropy_of_the_logits(make_data: Any, make_model: Any) -> None:
    data, model = make_data(), make_model()
    batch = _batch(data)
    logits = model.model(batch.tokens_BT, batch.meta_mask_BT, batch.position_ids_BT)
    log_p = logits.log_softmax(-1)
    nll = model.nll(batch)
    for row, t in [(0, 3), (1, 17), (2, 30)]:
        target = int(batch.targets_BT[row, t])
        expected = -log_p[row, t, target].item() if target >= 0 else 0.0
        assert nll[row, t].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tied_head", [True, False])
def test_what_is_minimised_has_the_gradient_of_the_plain_loss(tied_head: bool, make_data: Any, make_model: Any) -> None:
    data, model = make_data(), make_model(tied_head=tied_head)
    batch = _batch(data)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(model.parameters()))])

    logits_BTV = model.model(batch.tokens_BT, batch.meta_mask_BT, batch.position_ids_BT)
    plain = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch.targets_BT.flatten(), reduction="sum")
    found = summed(model.model, model.rows(batch)).sum
    torch.testing.assert_close(found, plain)
    ours, expected = gradient(found), gradient(plain)
    assert (ours - expected).norm() < 1e-6 * expected.norm()


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(make_data: Any, make_model: Any) -> None:
    with pytest.raises(UserError, match=r"model\.vocab_size=300: expected at least"):
        make_model(vocab_size=300).check_data(make_data())


def test_blocks_longer_than_the_position_table_are_refused(make_data: Any, make_model: Any) -> None:
    model = make_model(position="learned", max_positions=39)
    with pytest.raises(UserError, match=r"data\.block_size=40.*model\.max_positions=39"):
        model.check_data(make_data(meta_length="within"))
    make_model(position="learned", max_positions=40).check_data(make_data(meta_length="within"))


def test_a_checkpoint_of_another_shape_or_tokenizer_is_refused(make_data: Any, make_model: Any) -> None:
    saved: dict[str, Any] = {}
    model = make_model()
    model.tokenizer = make_data().tokenizer
    model.on_save_checkpoint(saved)
    saved["hyper_parameters"] = dict(model.hparams)
    model.on_load_checkpoint(saved)
    with pytest.raises(UserError, match=r"model\.d_model=32: the checkpoint was trained with 16"):
        make_model(d_model=32).on_load_checkpoint(saved)
    other = make_model()
    other.tokenizer = make_data(vocab_size=310).tokenizer
    with pytest.raises(UserError, match="tokenizer"):
        other.on_load_checkpoint(saved)


def test_hyperparameters_are_plain_and_rebuild_the_module(make_model: Any, tmp_path: Any) -> None:
    model = make_model(mechanism_options={"layers": [1]}, d_ff=24)
    torch.save({"hyper_parameters": dict(model.hparams)}, tmp_path / "x.pt")
    loaded = torch.load(tmp_path / "x.pt", weights_only=True)["hyper_parameters"]
    again = MetaTokenLM(**loaded)
    assert again.config == model.config
    assert again.optimizer_config == model.optimizer_config


def test_options_of_positions_are_the_checkpoint_s_but_for_those_that_extend_its_context(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = {"hyper_parameters": dict(make_model(position_options={"base": 500.0}).hparams)}
    make_model(position_options={"base": 9000.0}).on_load_checkpoint(saved)
    monkeypatch.setattr(RotaryPositions, "free_after_training", frozenset())
    make_model(position_options={"base": 500}).on_load_checkpoint(saved)
    with pytest.raises(UserError, match=r"position_options\.base=10000\.0: the checkpoint was trained with 500\.0"):
        make_model().on_load_checkpoint(saved)


def test_what_positions_cannot_do_is_refused_before_anything_runs(
    make_data: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RotaryPositions, "cannot", {"documents": "why not", "compile": "why not"})
    make_model().check_data(make_data())
    with pytest.raises(UserError, match=r"position='rotary' cannot pack documents: why not; expected one of none"):
        make_model().check_data(make_data(separate_documents=True))
    with pytest.raises(UserError, match="cannot be compiled: why not; expected one of"):
        make_model(compile=True)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
@pytest.mark.parametrize(
    ("every", "accumulate", "expected"),
    [(3, 1, [3, 6]), (1, 1, [1, 2, 3, 4, 5, 6, 7]), (2, 2, [2, 4, 6]), (50, 1, [])],
)
def test_what_training_measures_is_logged_as_often_as_it_is_written(
    every: int,
    accumulate: int,
    expected: list[int],
    tmp_path: Any,
    make_data: Any,
    make_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, log, said = make_model(), MetaTokenLM.log, defaultdict(list)

    def noted(self: MetaTokenLM, name: str, value: Any, **options: Any) -> None:
        said[name].append((self.global_step, float(value)))
        log(self, name, value, **options)

    monkeypatch.setattr(MetaTokenLM, "log", noted)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=7,
        log_every_n_steps=every,
        accumulate_grad_batches=accumulate,
        limit_val_batches=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule=make_data())
    for name in ("bits_per_byte/train", "loss/train", "optimizer/grad_norm", "optimizer/learning_rate"):
        assert [step for step, _ in said[name]] == expected
    nats = dict(said["loss/train"])
    # The model knows nothing yet: a token of some bytes takes ln 320 nats.
    assert all(0.1 < bits / nats[step] < 1.5 for step, bits in said["bits_per_byte/train"])
