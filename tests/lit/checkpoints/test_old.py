"""A checkpoint whose choices are in keys of an earlier version is read, started from, and gone on with."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.lit.checkpoints.load import load_model
from lightning_metatok.lit.checkpoints.resume import check_same_run
from lightning_metatok.old_keys import NEW, OLD

ARMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"mechanism": "none"}, {"meta_attention": False}),
    ({"mechanism": "matched"}, {"meta_over": "all"}),
    ({"mechanism_options": {"layers": [1], "shared": True}}, {"meta_layers": [1], "meta_shared": True}),
    ({"mechanism_options": {"fill": -1e4}}, {"meta_fill": -1e4}),
]


def old_choices(module: MetaTokenLM, old: dict[str, Any]) -> dict[str, Any]:
    """Its hyper-parameters as an earlier version saved them: all old keys, and none of those that came later."""
    later = (*NEW, "pattern", "pattern_options")
    return {**{key: value for key, value in module.hparams.items() if key not in later}, **OLD, **old}


def save(module: MetaTokenLM, data: Any, old: dict[str, Any], path: Path) -> Path:
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.6"}
    module.tokenizer = data.tokenizer
    module.on_save_checkpoint(checkpoint)
    torch.save({**checkpoint, "hyper_parameters": old_choices(module, old), "epoch": 0, "global_step": 0}, path)
    return path


@pytest.mark.parametrize(("new", "old"), ARMS, ids=lambda arm: str(arm))
def test_an_old_checkpoint_is_read_as_what_it_was(
    make_model: Any, make_data: Any, tmp_path: Path, new: dict[str, Any], old: dict[str, Any]
) -> None:
    module = make_model(**new)
    path = save(module, make_data(), old, tmp_path / "old.ckpt")
    model, _ = load_model(path)
    assert model.config == module.config
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), module.model.state_dict().values(), strict=True)
    )
    again = MetaTokenLM.load_from_checkpoint(path)
    assert again.config == module.config
    make_model(**new).on_load_checkpoint(torch.load(path, weights_only=True))
    make_model(**new, init_from=str(path))
    other = {"mechanism": "none"} if new.get("mechanism") != "none" else {}
    with pytest.raises(
        UserError, match=r"model\.mechanism=\w+: the checkpoint was trained with \w+; expected the same"
    ):
        make_model(**other).on_load_checkpoint(torch.load(path, weights_only=True))


def test_options_of_a_mechanism_are_the_checkpoint_s_but_for_those_that_weights_do_not_depend_on(
    make_model: Any, make_data: Any, tmp_path: Path
) -> None:
    path = save(make_model(), make_data(), {}, tmp_path / "old.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    make_model(mechanism_options={"fill": -1e4}).on_load_checkpoint(checkpoint)
    make_model(mechanism_options={"layers": None, "shared": False}).on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"mechanism_options\.shared=True: the checkpoint was trained with False"):
        make_model(mechanism_options={"shared": True}).on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"options\.layers=\[1\]: .* trained with None; .*model.init_new=\[layers\]"):
        make_model(mechanism_options={"layers": [1]}).on_load_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"model\.pattern=window: the checkpoint was trained with causal"):
        make_model(pattern="window").on_load_checkpoint(checkpoint)


def test_a_run_with_old_keys_is_gone_on_with() -> None:
    saved = {"config": {"model.meta_attention": True, "model.meta_layers": "[1]", "model.meta_over": "meta"}}
    saved["config"] |= {"model.meta_shared": False, "model.meta_fill": None, "data.batch_size": 4}
    mine: dict[str, Any] = {"model.pattern": "causal", "model.pattern_options": "{}", "model.mechanism": "meta"}
    mine |= {"model.mechanism_options.layers": "[1]", "data.batch_size": 4}
    check_same_run({**saved, "world_size": 1}, mine, {"devices": 1}, [])
    with pytest.raises(UserError, match=r"model\.mechanism=matched \(was meta\)"):
        check_same_run({**saved, "world_size": 1}, {**mine, "model.mechanism": "matched"}, {"devices": 1}, [])
