"""A student learns from a teacher that reads the text alone: the divergence by hand, whole runs, and mistakes."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM, Trainer
from lightning_metatok.lit.budget import Budget
from tests.lit.one_step import QUIET, step

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
STUDENT: dict[str, Any] = {"mechanism": "own_qkv", "pattern": "chunk_window", "extra_position": "last"}


@pytest.fixture
def teacher(make_data: Any, make_model: Any, tmp_path: Path) -> Any:
    """A function that writes the checkpoint of a plain model with weights that matter."""

    def write(name: str = "teacher.ckpt", seed: int = 1, **options: Any) -> Path:
        torch.manual_seed(seed)
        model = make_model(mechanism="none", **options)
        model.tokenizer = make_data().tokenizer
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        saved = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
        model.on_save_checkpoint(saved)
        torch.save(saved, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize("separate", [False, True], ids=["one document", "documents"])
def test_the_divergence_is_that_of_each_next_text_token(
    separate: bool, make_data: Any, make_model: Any, teacher: Any
) -> None:
    model = make_model(distill_from=str(teacher()), **STUDENT)
    theirs = model.teacher.model
    model.separate_documents = separate
    batch = make_data().context_batches(1, windows=2, largest=2)[0]
    B, T = batch.tokens_BT.shape
    if separate:
        batch = replace(batch, document_ids_BT=(torch.arange(T) >= 17).long().expand(B, T))
    rows = model.rows(batch)
    found = model.teacher.divergence(batch, rows, model.model.head_weight, separate_documents=separate)
    logits_BTV = model.model(
        batch.tokens_BT, batch.meta_mask_BT, batch.position_ids_BT, batch.document_ids_BT if separate else None
    )
    expected = torch.zeros(())
    for b in range(B):
        text = (~batch.meta_mask_BT[b]).nonzero().flatten().tolist()
        documents = batch.document_ids_BT[b, text].tolist()
        starts = [0, *(i for i in range(1, len(text)) if separate and documents[i] != documents[i - 1]), len(text)]
        alone = [batch.tokens_BT[b : b + 1, text[i:j]] for i, j in itertools.pairwise(starts)]
        their_SV = torch.cat([theirs(tokens) for tokens in alone], dim=1)[0]
        for t in (batch.targets_BT[b] >= 0).nonzero().flatten().tolist():
            s = sum(at <= t for at in text) - 1
            p, q = their_SV[s].softmax(-1), logits_BTV[b, t].softmax(-1)
            expected = expected + (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    ours, by_hand = (
        torch.cat([g.flatten() for g in torch.autograd.grad(x, tuple(model.parameters()), materialize_grads=True)])
        for x in (found, expected)
    )
    assert (ours - by_hand).norm() < 1e-4 * by_hand.norm()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in theirs.parameters())


def test_without_marks_a_student_is_its_teacher(make_data: Any, make_model: Any, teacher: Any) -> None:
    path = str(teacher())
    model = make_model(mechanism="none", init_from=path, distill_from=path)
    batch = make_data(meta_fraction=0.0).context_batches(1, windows=2, largest=2)[0]
    apart = model.teacher.divergence(batch, model.rows(batch), model.model.head_weight, separate_documents=False)
    assert apart.item() == pytest.approx(0, abs=1e-5)
    again = MetaTokenLM(**dict(model.hparams))
    assert again.teacher is None, "what was learned is there without the teacher"
    assert again.state_dict().keys() == model.state_dict().keys()


def fit(make_data: Any, steps: int, folder: Path, resume: Path | None = None, **model: Any) -> MetaTokenLM:
    """Train, keep the checkpoint."""
    torch.manual_seed(7)
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 320, "dropout": 0.1}
    module = MetaTokenLM(**shape, **STUDENT, **model)
    trainer = Trainer(max_steps=steps, accelerator="cpu", precision="32-true", limit_val_batches=0, **QUIET)
    trainer.fit(module, datamodule=make_data(seed=3), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return module


def test_a_run_goes_on_bit_for_bit_and_by_the_same_teacher(make_data: Any, teacher: Any, tmp_path: Path) -> None:
    options = {"distill_from": str(teacher())}
    whole = fit(make_data, 4, tmp_path, **options)
    assert whole.measured["loss/distill/train"] > 0
    fit(make_data, 2, tmp_path, **options)
    torch.manual_seed(99)
    resumed = fit(make_data, 4, tmp_path, tmp_path / "2.ckpt", **options)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    alone = fit(make_data, 4, tmp_path)
    assert any(not torch.equal(weight, alone.state_dict()[name]) for name, weight in whole.state_dict().items())
    teacher(seed=2)
    with pytest.raises(UserError, match=r"model.distill_from=.*teacher.ckpt: expected the file that this run began"):
        fit(make_data, 4, tmp_path, tmp_path / "2.ckpt", **options)


def test_parts_of_a_step_add_up(corpus: Path, teacher: Any) -> None:
    data = {"corpus": str(corpus), "validation_fraction": 0.3, "vocab_size": 320, "block_size": 40}
    model = {**STUDENT, "distill_from": str(teacher())}
    one, two = step(data, model, 4, 1), step(data, model, 2, 2)
    torch.testing.assert_close(two.gradient, one.gradient, rtol=1e-4, atol=1e-6)


def test_a_student_of_another_pattern_starts_from_its_teacher(make_model: Any, teacher: Any, capsys: Any) -> None:
    path = str(teacher())
    with pytest.raises(UserError, match=r"pattern=chunk_window: .* trained with causal; .*model.init_new=\[pattern\]"):
        make_model(**STUDENT, init_from=path, init_new=["layers"])
    model = make_model(**STUDENT, init_from=path, init_new=["layers", "pattern"], distill_from=path)
    line = "fresh are own q, k, v in blocks 0, 1, the pattern (chunk_window); all other weights are the checkpoint's"
    assert line in capsys.readouterr().out
    theirs = model.teacher.model.state_dict()
    assert all(torch.equal(weight, model.model.state_dict()[name]) for name, weight in theirs.items())
    seen = {"pattern": "window", "pattern_options": {"w": 4}}
    windowed = str(teacher("windowed.ckpt", **seen))
    with pytest.raises(UserError, match=r"model.pattern_options.w=8: .* trained with 4; .*model.init_new=\[pattern\]"):
        make_model(mechanism="none", pattern="window", pattern_options={"w": 8}, init_from=windowed)
    wide = {"pattern": "window", "pattern_options": {"w": 8}, "init_from": windowed, "init_new": ["pattern"]}
    assert make_model(mechanism="none", **wide).config.pattern_options == {"w": 8}


def test_mistakes_are_named(make_data: Any, make_model: Any, teacher: Any, tmp_path: Path) -> None:
    path = str(teacher())
    for options, message in (
        ({"distill_from": "nowhere.ckpt"}, r"model.distill_from=nowhere.ckpt: no such file"),
        ({"distill_from": str(tmp_path)}, r"model.distill_from=.*: expected a file, this is a folder"),
        ({"distill_from": path, "distill_weight": 0.0}, r"model.distill_weight=0: expected more than 0"),
        ({"distill_from": path, "vocab_size": 400}, r"it has 320 token ids, expected model.vocab_size=400"),
    ):
        with pytest.raises(UserError, match=message):
            make_model(**options)
    model = make_model(distill_from=path)
    with pytest.raises(UserError, match=r"model.distill_from=.*: its tokenizer is not that of the data; expected data"):
        model.check_data(make_data(vocab_size=310))
    trainer = Trainer(max_steps=1, accelerator="cpu", budget=Budget(flops=1e12), **QUIET)
    with pytest.raises(
        UserError, match=r"trainer.budget.flops=1e\+12: a teacher's are not counted; with model.distill"
    ):
        trainer.fit(model, datamodule=make_data())
