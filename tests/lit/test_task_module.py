"""Training on answers: logits at scored positions alone, accuracy, and weights of another run to start from."""

import json
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_metatok.data import Batch, MetaTokenizer
from lightning_metatok.data.examples import ANSWER
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM, TaskDataModule
from lightning_metatok.lit.answers.accuracy import AnswerAccuracy
from lightning_metatok.lit.callbacks.progress import TokenProgress
from lightning_metatok.lit.module import TOKENIZER_KEY
from lightning_metatok.lit.optim import OptimizerConfig
from lightning_metatok.lit.run.loggers import JsonlLogger

V = 672


def make_data(**given: Any) -> TaskDataModule:
    """List recall in symbols."""
    options = {"n_lists": [2, 3], "list_length": [2, 4], "pool": 12, "n_queries": 2}
    defaults = {"batch_size": 8, "train_examples": None, "validation_examples": 20, "test_examples": 20}
    data = TaskDataModule("list_recall", options, **{**defaults, **given})
    data.setup("fit")
    return data


def make_model(**given: Any) -> MetaTokenLM:
    """A tiny model."""
    torch.manual_seed(0)
    return MetaTokenLM(**{"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": V, **given})


def fit(model: MetaTokenLM, data: TaskDataModule, folder: Path, steps: int = 2, **options: Any) -> lightning.Trainer:
    """Train on the CPU without the command line's callbacks."""
    options = {"enable_progress_bar": False, **options}
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=JsonlLogger(folder),
        val_check_interval=steps, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        log_every_n_steps=1, use_distributed_sampler=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.*LeafSpec.*")
        trainer.fit(model, datamodule=data)
    return trainer


# -- loss and accuracy


@pytest.mark.parametrize("given", [{}, {"mechanism": "none"}, {"position": "learned"}, {"tied_head": False}])
def test_scored_positions_alone_give_the_loss_and_the_gradients_of_all(given: dict[str, Any]) -> None:
    batch = make_data().evaluation_task().examples(16, 3).batch()
    losses, gradients = [], []
    for scores_answers_only in (True, False):
        model = make_model(**given)
        model.scores_answers_only = scores_answers_only
        nll_BT = model.nll(batch)
        assert nll_BT.shape == batch.targets_BT.shape
        assert (nll_BT[batch.targets_BT < 0] == 0).all()
        loss = nll_BT.sum() / (batch.targets_BT >= 0).sum()
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    # The same float32 sums in another order: losses of about 6, gradients of about 0.1.
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_filling_up_a_batch_changes_no_loss() -> None:
    examples = make_data().evaluation_task().examples(1, 3)
    longer = make_data().evaluation_task(3.0).examples(1, 3)
    model = make_model()
    model.scores_answers_only = True
    both = type(examples)(
        np.concatenate([examples.tokens, longer.tokens]),
        np.concatenate([examples.flags, longer.flags]),
        np.array([0, len(examples.tokens), len(examples.tokens) + len(longer.tokens)]),
    )
    alone, filled = model.nll(examples.batch()).sum(), model.nll(both.batch())[0].sum()
    torch.testing.assert_close(filled, alone, rtol=1e-5, atol=1e-5)


def test_accuracy_counts_tokens_and_whole_answers() -> None:
    metric = AnswerAccuracy()
    targets_BT = torch.tensor([[-100, 5, 6], [-100, -100, 7], [-100, 8, 9], [-100, -100, -100]])
    right_BT = torch.tensor([[True, True, False], [True, False, True], [False, True, True], [True, True, True]])
    metric.update(right_BT, targets_BT)
    assert {k: float(v) for k, v in metric.compute().items()} == pytest.approx({"token": 4 / 5, "exact": 2 / 3})
    metric.update(~right_BT, targets_BT)
    assert {k: float(v) for k, v in metric.compute().items()} == pytest.approx({"token": 5 / 10, "exact": 2 / 6})


def test_progress_counts_tokens_and_not_what_fills_a_batch_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Sizes(lightning.Callback):
        filled = 0

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
            self.filled += batch.tokens_BT.numel()

    data, sizes = make_data(), Sizes()
    fit(make_model(), data, tmp_path, enable_progress_bar=True, callbacks=[TokenProgress(every_s=0.0), sizes])
    tokens = sum(data.counts(step).tokens for step in (0, 1))
    assert tokens < sizes.filled
    assert f"train: 2/2 steps  {tokens} tokens" in capsys.readouterr().err


def test_a_fit_logs_loss_and_accuracy_of_held_out_answers_and_no_bits_per_byte(tmp_path: Path) -> None:
    model, data = make_model(), make_data()
    trainer = fit(model, data, tmp_path)
    values = {k: v for line in JsonlLogger(tmp_path).read() for k, v in line.items()}
    assert {"loss/train", "loss/val", "accuracy/token/val", "accuracy/exact/val"} <= values.keys()
    assert not [name for name in values if "bits_per_byte" in name]
    examples = data._validation()
    with torch.no_grad():
        logits_BTV = model.eval().model(*(getattr(examples.batch(), k) for k in ("tokens_BT", "meta_mask_BT")))
    targets_BT = examples.batch().targets_BT
    scored_BT = targets_BT >= 0
    right_BT = (logits_BTV.argmax(dim=2) == targets_BT) & scored_BT
    loss = F.cross_entropy(logits_BTV[scored_BT], targets_BT[scored_BT])
    assert int(scored_BT.sum()) == int(((examples.flags & ANSWER) > 0).sum())
    assert values["accuracy/token/val"] == pytest.approx(float(right_BT.sum() / scored_BT.sum()))
    assert values["loss/val"] == pytest.approx(float(loss), abs=1e-5)
    assert trainer.global_step == 2


# -- weights of another run


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    """A function that writes a checkpoint of a model of the given shape, trained on text."""

    def write(corpus: Path, **given: Any) -> Path:
        model = make_model(vocab_size=400, **given)
        model.tokenizer = MetaTokenizer.train(corpus.read_text().splitlines(), 400)
        saved = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        model.on_save_checkpoint(saved)
        torch.save(saved, tmp_path / "text.ckpt")
        return tmp_path / "text.ckpt"

    return write


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return torch.load(path, weights_only=True)["state_dict"]


def test_fresh_tokens_keep_the_row_of_the_meta_token_and_all_other_weights(
    checkpoint: Any, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(corpus, tied_head=False)
    frozen = OptimizerConfig(lr=1e-12, min_lr=0, warmup_steps=0, weight_decay=0)
    model = make_model(init_from=str(path), init_new=["tokens"], tied_head=False, optimizer=frozen)
    line = f"model.init_from={path}: fresh are the embedding of {V} ids (<|meta|> keeps its row)"
    assert capsys.readouterr().out.startswith(line)
    before = model.model.embedding.weight.detach().clone()
    fit(model, make_data(), tmp_path, steps=1)
    theirs = weights(path)
    text_meta = MetaTokenizer.from_json(torch.load(path, weights_only=True)[TOKENIZER_KEY]).meta_id
    meta = make_data().tokenizer.meta_id
    for name, weight in model.state_dict().items():
        if name in ("model.embedding.weight", "model.head.weight"):
            torch.testing.assert_close(weight[meta], theirs[name][text_meta], rtol=0, atol=1e-6)
            assert weight.shape == (V, 16)
        else:
            torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)
    others = [i for i in range(V) if i != meta]
    torch.testing.assert_close(model.model.embedding.weight.detach()[others], before[others], rtol=0, atol=1e-6)


def test_the_same_tokens_are_expected_unless_fresh_ones_are_asked_for(
    checkpoint: Any, corpus: Path, tmp_path: Path
) -> None:
    path = checkpoint(corpus)
    with pytest.raises(UserError, match=r"vocab_size=672: .* trained with 400; .*model.init_new=\[tokens\]"):
        make_model(init_from=str(path))
    model = make_model(init_from=str(path), vocab_size=400)
    data = make_data()
    with pytest.raises(UserError, match=r"the checkpoint's tokenizer \(400 ids\) is not that of the data \(652 ids\)"):
        model.check_data(data)
    text = TaskDataModule("list_recall", {"rendering": "text", "n_lists": [2, 2]}, train_examples=None,
                          validation_examples=8, test_examples=8)  # fmt: skip
    text.carried = model.tokenizer
    text.setup("fit")
    fit(model, text, tmp_path, steps=1)


def test_a_longer_table_of_positions_keeps_the_rows_that_there_are(
    checkpoint: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(corpus, position="learned", max_positions=32)
    shape = {"vocab_size": 400, "position": "learned", "init_from": str(path)}
    with pytest.raises(UserError, match=r"max_positions=48: .* trained with 32; .*model.init_new=\[positions\]"):
        make_model(**shape, max_positions=48)
    with pytest.raises(UserError, match=r"model\.max_positions=16: the checkpoint has 32; expected at least as many"):
        make_model(**shape, max_positions=16, init_new=["positions"])
    longer = make_model(**shape, max_positions=48, init_new=["positions"])
    assert "fresh are positions 32 to 47; all other weights" in capsys.readouterr().out
    table, theirs = longer.model.positions.table.weight, weights(path)["model.positions.table.weight"]  # type: ignore
    assert torch.equal(table[:32], theirs)
    assert table[32:].abs().min() > 0
    make_model(**shape, max_positions=32, init_new=["positions"])
    assert capsys.readouterr().out == ""


def test_meta_attention_that_the_checkpoint_lacks_starts_fresh_when_asked(
    checkpoint: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(corpus, mechanism="none")
    with pytest.raises(UserError, match=r"mechanism=meta: .* trained with none; .*model.init_new=\[layers\]"):
        make_model(vocab_size=400, init_from=str(path))
    model = make_model(vocab_size=400, init_from=str(path), init_new=["layers"], mechanism_options={"layers": [1]})
    assert "fresh are meta-attention in blocks 1; all other weights" in capsys.readouterr().out
    theirs = weights(path)
    mine = {name: weight for name, weight in model.state_dict().items()}
    assert theirs.keys() < mine.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert all("blocks.1." in name and "meta" in name for name in mine.keys() - theirs.keys())


def test_weights_of_the_checkpoint_are_never_left_out(checkpoint: Any, corpus: Path) -> None:
    path = checkpoint(corpus, mechanism="meta")
    for given in ({"mechanism": "none"}, {"mechanism_options": {"layers": [0]}}, {"mechanism": "matched"}):
        with pytest.raises(UserError, match=r"the checkpoint was trained with|weights differ; .*not expected"):
            make_model(vocab_size=400, init_from=str(path), init_new=["layers"], **given)


def test_parts_that_do_not_exist_are_named(checkpoint: Any, corpus: Path) -> None:
    path = checkpoint(corpus)
    with pytest.raises(UserError, match=r"model\.init_new: token: expected some of .*did you mean 'tokens'"):
        make_model(vocab_size=400, init_from=str(path), init_new=["token"])
    with pytest.raises(UserError, match=r"model.init_new=\['layers'\]: expected model.init_from"):
        make_model(init_new=["layers"])


# -- position ids of the task


def test_coupled_positions_want_ids_of_a_task_and_a_table_that_holds_them(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"position='coupled': expected data\.task with data\.task_options\.coupled=true"
    ):
        make_model(position="coupled").check_data(make_data())
    options = {"coupled": True, "n_digits": [2, 9], "symbols": [16, 2, 2]}
    data = TaskDataModule("addition", options, batch_size=8, train_examples=None, validation_examples=20)
    data.setup("fit")
    assert data.n_positions == 11 < data.block_length
    with pytest.raises(UserError, match=r"position ids up to 10 reach beyond .* model\.max_positions=10"):
        make_model(position="coupled", max_positions=10).check_data(data)
    model = make_model(position="coupled", max_positions=30)
    before = model.model.positions.table.weight.detach().clone()
    fit(model, data, tmp_path)
    # Weight decay alone moves a weight by less than 1e-7.
    assert (model.model.positions.table.weight - before)[11:].abs().max() > 1e-6, "starts are random in training"


def test_random_starts_follow_from_the_seed_and_the_step(tmp_path: Path) -> None:
    curves = []
    for folder in ("one", "two"):
        torch.manual_seed(len(folder))
        model = make_model(position="learned", max_positions=80, position_options={"random_start": True})
        torch.rand(3 if folder == "one" else 5)  # whatever was drawn before
        fit(model, make_data(), tmp_path / folder)
        curves.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*curves, strict=True))


def test_predicted_position_ids_are_learned_beside_the_tokens(tmp_path: Path) -> None:
    options = {"coupled": True, "n_digits": [2, 4], "symbols": [16, 2, 2]}
    data = TaskDataModule("addition", options, batch_size=8, train_examples=None, validation_examples=20)
    data.setup("fit")
    model = make_model(
        position="coupled",
        max_positions=20,
        position_options={"predict": True, "random_start": False},
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0),
    )
    fit(model, data, tmp_path, steps=30)
    losses = [
        entry["loss/position_ids/train"] for entry in read_metrics(tmp_path) if "loss/position_ids/train" in entry
    ]
    assert len(losses) == 30
    # 20 ids: ln 20 = 3.0 at first. That the answer's ids count from 1 is soon known.
    assert losses[0] > 2.5
    assert losses[-1] < 0.5 * losses[0]
    batch = data.evaluation_examples(n=10).batch()
    assert model.eval().rows(batch).id_nll is not None
    nll_BT = model.answers(batch)[0]
    torch.testing.assert_close(model.nll(batch), nll_BT, msg="the loss of tokens is apart from that of ids")
    assert model.answers(batch)[1].any()
    assert model.model.positions.head is not None
    with torch.no_grad():
        model.model.positions.head.weight.zero_()  # every id is 0 now, which no digit of an answer has
    assert not model.answers(batch)[1].any(), "what generation writes behind a wrong id is not right"


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """What the logger wrote, a dict a step."""
    return [json.loads(line) for line in next(folder.rglob("metrics.jsonl")).read_text().splitlines()]
