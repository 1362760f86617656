"""Separators in a run: which ids they are, what is scored, what a checkpoint holds, and mistakes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import Trainer
from lightning_metatok.lit.checkpoints.load import load_model
from tests.lit.one_step import QUIET

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
SEPLLM: dict[str, Any] = {"pattern": "sinks_window_meta", "pattern_options": {"n": 2, "w": 4}, "mechanism": "none"}
TEXTS = [".", ";", "\n"]


def test_a_run_finds_them_in_its_tokenizer_and_a_checkpoint_holds_them(
    make_data: Any, make_model: Any, tmp_path: Path
) -> None:
    data, model = make_data(meta_fraction=0.0), make_model(**SEPLLM, separators=TEXTS)
    trainer = Trainer(max_steps=2, accelerator="cpu", precision="32-true", limit_val_batches=0, **QUIET)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded, tokenizer = load_model(tmp_path / "last.ckpt")
    assert loaded.separators_V is not None
    found = loaded.separators_V.nonzero().flatten().tolist()
    assert found == [id for id in range(320) if re.search(r"[.;\n]\Z", tokenizer.decode([id]))] != []
    batch = data.context_batches(1, windows=2, largest=2)[0]
    assert torch.isin(batch.tokens_BT, torch.tensor(found)).any()
    plain = make_model(mechanism="none")
    for module in (model, plain):  # every token of the text is scored, separators among them
        assert bool((module.nll(batch)[batch.targets_BT >= 0] > 0).all())
    assert int((batch.targets_BT >= 0).sum()) == len(batch.tokens_BT) * 39


def test_a_plain_checkpoint_goes_on_with_them(make_data: Any, make_model: Any, tmp_path: Path) -> None:
    plain = make_model(mechanism="none")
    saved = {"state_dict": plain.state_dict(), "hyper_parameters": dict(plain.hparams)}
    torch.save(saved, tmp_path / "plain.ckpt")
    options = {**SEPLLM, "separators": TEXTS, "init_from": str(tmp_path / "plain.ckpt")}
    with pytest.raises(UserError, match=r"trained with .*model.init_new=\[pattern\]"):
        make_model(**options)
    model = make_model(**options, init_new=["pattern"])
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in plain.state_dict().items())


def test_a_text_that_ends_no_token_is_named(make_data: Any, make_model: Any) -> None:
    model = make_model(**SEPLLM, separators=[".", r"\n\n"])
    trainer = Trainer(max_steps=1, accelerator="cpu", **QUIET)
    says = re.escape(repr(r"\n\n")) + ": no token of the tokenizer ends so"
    with pytest.raises(UserError, match=says):
        trainer.fit(model, datamodule=make_data())
