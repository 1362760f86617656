"""The gradient of a step is that of the mean over all its scored tokens, however it is cut into micro-batches."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM, TaskDataModule
from tests.lit.one_step import MODEL, flat, step

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning and torch, which the command line silences, too

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "copying": ({"task": "copying"}, {}),
    "addition": ({"task": "addition"}, {}),
    "list_recall": ({"task": "list_recall"}, {}),
    "predicted positions": (
        {"task": "addition", "task_options": {"coupled": True}},
        {"position": "coupled", "position_options": {"predict": True, "random_start": False}, "mechanism": "none"},
    ),
    "text": ({"block_size": 40, "vocab_size": 320, "validation_fraction": 0.3}, {}),
    "text in documents": (
        {"block_size": 40, "vocab_size": 320, "validation_fraction": 0.3, "separate_documents": True},
        {},
    ),
}


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The distance of two gradients, as a share of the second."""
    return float((one - other).norm() / other.norm())


def options(name: str, corpus: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the data and of the model."""
    data, model = CASES[name]
    return ({**data, "corpus": str(corpus)} if "task" not in data else data), model


@pytest.mark.parametrize(("size", "parts"), [(4, 2), (1, 8)])
@pytest.mark.parametrize("name", CASES)
def test_micro_batches_count_by_what_they_score(name: str, size: int, parts: int, corpus: Path) -> None:
    # A task's rows are put into batches by their lengths, by so many a window: other sizes meet other rows.
    data, model = options(name, corpus)
    taken = step(data, model, size, parts)
    assert len(taken.batches) == parts
    assert apart(taken.gradient, of_all(taken.batches, data, model)) < 1e-6


@pytest.mark.parametrize("name", ["text", "text in documents"])
def test_a_step_of_text_is_the_same_however_it_is_cut(name: str, corpus: Path) -> None:
    data, model = options(name, corpus)
    at_once = step(data, model, 8, 1).gradient
    for size, parts in ((4, 2), (1, 8)):
        assert apart(step(data, model, size, parts).gradient, at_once) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy"), [("copying", "ddp"), ("text", "ddp"), ("text", "fsdp2")])
def test_ranks_and_micro_batches_count_alike(name: str, strategy: str, corpus: Path, tmp_path: Path) -> None:
    data, model = options(name, corpus)
    at_once = step(data, model, 4, 2)  # micro-batches of the same rows as those of two ranks with 2 x 2
    given = {"data": data, "model": model, "size": 2, "parts": 2, "strategy": strategy}
    kept = tmp_path / "gradient.pt"
    done = subprocess.run(
        [sys.executable, "-m", "tests.lit.one_step", json.dumps(given), str(kept)],
        capture_output=True, text=True, timeout=240, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert apart(torch.load(kept), at_once.gradient) < 1e-6


def of_all(batches: list[Any], data: dict[str, Any], model: dict[str, Any]) -> torch.Tensor:
    """The gradient of the mean over all that `batches` score, at the weights that `step` starts from."""
    n_ids = 1 + max(int(batch.tokens_BT.max()) for batch in batches)
    vocabulary = vocabulary_of(data)
    assert n_ids <= vocabulary
    torch.manual_seed(0)
    module = MetaTokenLM(**{**MODEL, "vocab_size": vocabulary, **model}).train()
    module.scores_answers_only, module.separate_documents = "task" in data, data.get("separate_documents", False)
    total, scored = torch.zeros(()), 0
    for batch in batches:
        n = int((batch.targets_BT >= 0).sum())
        id_nll = module.rows(batch).id_nll
        total = total + module.nll(batch).sum() + (0 if id_nll is None else id_nll * n)
        scored += n
    (total / scored).backward()
    return flat(module)


def vocabulary_of(data: dict[str, Any]) -> int:
    """Ids of the tokenizer."""
    kind: Any = TaskDataModule if "task" in data else MetaTokenDataModule
    module = kind(**data)
    module.prepare_data()
    return int(module.tokenizer.vocab_size)
