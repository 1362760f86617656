"""Checkpoints that are missing, cut, of another model, or made to harm: refused in one line; nothing runs."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bad_input.conftest import Refused
from tests.system.helpers import documents

Change = Callable[[dict[str, Any]], object]
EMBEDDING = "model.embedding.weight"


class Evil:
    """Makes the file that it names when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.path),)


def ways(path: Path, fit: list[str], debug: list[str], run_dir: Path) -> list[tuple[str | Path, ...]]:
    """Every way in for a checkpoint."""
    return [
        (*fit, f"--ckpt_path={path}"),
        (*fit, f"--model.init_from={path}"),
        ("test", *debug, f"--ckpt_path={path}", f"--run_dir={run_dir}"),
        ("generate", "--ckpt_path", path, "--prompt", "x"),
    ]


def test_no_pickle_is_run(fit: list[str], debug: list[str], refused: Refused, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.ckpt"
    for content in (Evil(marker), {"state_dict": {EMBEDDING: Evil(marker)}}):
        torch.save(content, path)
        for way in ways(path, fit, debug, tmp_path / "run"):
            assert "evil.ckpt: cannot be read as a checkpoint (UnpicklingError)" in refused(*way)
    path.write_bytes(pickle.dumps(Evil(marker)))
    for way in ways(path, fit, debug, tmp_path / "run"):
        assert "evil.ckpt: cannot be read as a checkpoint" in refused(*way)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists(), "the pickle would have done it"


EVERY, RESUME, GENERATE = range(3)
CHANGES: dict[str, tuple[Change, int, str]] = {
    "no-weights": (lambda c: c.pop("state_dict"), EVERY, "expected a checkpoint with a state_dict"),
    "weights-listed": (lambda c: c.update(state_dict=[1]), EVERY, "state_dict holds list, expected mapping"),
    "no-tensor": (lambda c: c["state_dict"].update({EMBEDDING: 3}), EVERY, "holds int, expected a tensor"),
    "weight-gone": (lambda c: c["state_dict"].pop(EMBEDDING), EVERY, "missing ['embedding.weight']"),
    "weight-more": (lambda c: c["state_dict"].update({"model.x": torch.ones(1)}), EVERY, "not expected ['x']"),
    "shape": (lambda c: c["state_dict"].update({EMBEDDING: torch.ones(3)}), EVERY, "shape [3]; expected [512, 32]"),
    "nan": (lambda c: c["state_dict"][EMBEDDING].fill_(float("nan")), EVERY, "embedding.weight are not finite"),
    "options-listed": (lambda c: c.update(hyper_parameters=[1]), EVERY, "hyper_parameters holds list"),
    "tokenizer-wrong": (lambda c: c.update(tokenizer="garbage"), EVERY, "tokenizer is no tokenizer.json ("),
    "tokenizer-number": (lambda c: c.update(tokenizer=3), EVERY, "tokenizer holds int, expected str"),
    "callback": (lambda c: c["callbacks"].update(RunState=3), EVERY, "callbacks['RunState'] holds int"),
    "no-options": (lambda c: c.pop("hyper_parameters"), RESUME, "expected a checkpoint as `fit` writes them"),
    "no-tokenizer": (lambda c: c.pop("tokenizer"), RESUME, "no tokenizer; expected"),
    "no-optimizer": (lambda c: c.pop("optimizer_states"), RESUME, "no optimizer_states; expected"),
    "empty-optimizer": (lambda c: c.update(optimizer_states=[{}]), RESUME, "are not those of 20 parameters"),
    "no-loops": (lambda c: c.pop("loops"), RESUME, "no loops; expected"),
    "step-word": (lambda c: c.update(global_step="x"), RESUME, "global_step holds str, expected int"),
    "width-word": (lambda c: c["hyper_parameters"].update(d_model="x"), GENERATE, "model.d_model='x': expected"),
    "no-width": (lambda c: c["hyper_parameters"].pop("d_model"), GENERATE, "hyper_parameters describe no transf"),
    "wide": (lambda c: c["hyper_parameters"].update(d_model=2**40), GENERATE, "hyper_parameters describe no transf"),
    "wider": (lambda c: c["hyper_parameters"].update(d_ff=2**30), GENERATE, "have shape [128, 32]; expected [10737"),
    "high": (lambda c: c["hyper_parameters"].update(n_layers=10**9), GENERATE, "but there are 20 weights"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_checkpoint_is_refused(
    name: str, checkpoint: Path, fit: list[str], debug: list[str], refused: Refused, tmp_path: Path
) -> None:
    change, where, expected = CHANGES[name]
    content, path = torch.load(checkpoint, weights_only=True), tmp_path / "changed.ckpt"
    change(content)
    torch.save(content, path)
    every = ways(path, fit, debug, tmp_path / "run")
    for way in {EVERY: every, RESUME: every[:1], GENERATE: every[-1:]}[where]:
        line = refused(*way)
        assert expected in line
        assert "changed.ckpt" in line


@pytest.mark.one_in(3)
@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--model.d_model=64", "model.d_model=64: the checkpoint was trained with 32"),
        ("--model.bias=true", "model.bias=True: the checkpoint was trained with False"),
        ("--data.vocab_size=400", "data.tokenizer: the checkpoint's tokenizer (512 ids) is not that of the data (400"),
    ],
)
def test_a_checkpoint_of_another_model_or_vocabulary_is_refused(
    verb: str, option: str, expected: str, checkpoint: Path, refused: Refused, tmp_path: Path
) -> None:
    before = sorted(checkpoint.parents[1].rglob("*"))
    assert expected in refused(verb, "--ckpt_path", checkpoint, option, f"--run_dir={tmp_path / 'run'}")
    assert sorted(checkpoint.parents[1].rglob("*")) == before


def test_a_tokenizer_of_the_same_size_from_other_text_is_refused(
    checkpoint: Path, refused: Refused, tmp_path: Path
) -> None:
    other = tmp_path / "upper.jsonl"
    other.write_text("".join(json.dumps({"text": text.upper()}) + "\n" for text in documents(100)))
    expected = "data.tokenizer: the checkpoint's tokenizer (512 ids) is not that of the data (512 ids)"
    assert expected in refused("validate", "--ckpt_path", checkpoint, f"--data.corpus={other}")


def test_weights_of_another_tokenizer_do_not_start_a_run(
    fit: list[str], checkpoint: Path, refused: Refused, tmp_path: Path
) -> None:
    line = refused(*fit, f"--model.init_from={checkpoint}", "--data.vocab_size=400", "--model.vocab_size=512")
    assert "the checkpoint's tokenizer (512 ids)" in line


def test_a_file_that_is_no_checkpoint_is_refused(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    garbage, stranger = tmp_path / "garbage.ckpt", tmp_path / "stranger.ckpt"
    garbage.write_bytes(bytes(range(256)) * 40)
    torch.save({"state_dict": {}}, stranger)
    torch.save([1, 2], tmp_path / "list.ckpt")
    for path in (garbage, stranger, tmp_path / "list.ckpt", tmp_path):
        assert f"--ckpt_path={path}" in refused(*fit, f"--ckpt_path={path}")
        if path != stranger:
            assert f"{path}" in refused("generate", "--ckpt_path", path, "--prompt", "x")


def test_a_truncated_checkpoint_is_refused(fit: list[str], checkpoint: Path, refused: Refused, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.ckpt").write_bytes(content[:length])
        assert "cut.ckpt" in refused(*fit, f"--ckpt_path={tmp_path / 'cut.ckpt'}")
