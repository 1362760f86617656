"""Subjects of probes: models whose answer takes one known path, and small trained-like ones of every arm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.lit import MetaTokenLM, TaskDataModule
from lightning_metatok.probes import Subject
from lightning_metatok.probes.subject import held_out
from tests.model.handmade import SYMBOLS, Kind, hand_made

MakeSubject = Callable[..., Subject]


def subject_of(module: MetaTokenLM, data: TaskDataModule, n: int) -> Subject:
    """The first `n` held-out prompts of `data`, for `module` in eval mode."""
    data.setup("probe")
    module.scores_answers_only = True
    examples, batches = held_out(data, n)
    return Subject(module.eval(), data, batches, examples, torch.device("cpu"), 0, n, "test")


@pytest.fixture(scope="session")
def one_item_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a list recall of one list of one item: L0 M a4 M ? L0 1 -> a4."""
    return {
        "task": "list_recall",
        "task_options": {"symbols": list(SYMBOLS), "n_lists": [1, 1], "list_length": [1, 1]},
        "meta_placement": "every",
        "validation_examples": 8,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture
def known(one_item_data: dict[str, Any]) -> Callable[[Kind], Subject]:
    """A function that makes a subject whose model answers by one known path."""

    def make(kind: Kind, n: int = 64) -> Subject:
        model = hand_made(kind)
        config = {k: getattr(model.config, k) for k in ("n_layers", "n_heads", "d_model", "vocab_size", "position")}
        module = MetaTokenLM(**config, tied_head=False)
        module.model.load_state_dict(model.state_dict())
        return subject_of(module, TaskDataModule(**one_item_data), n)

    return make


@pytest.fixture(scope="session")
def list_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a list recall of two short lists."""
    return {
        "task": "list_recall",
        "task_options": {"symbols": [8, 8, 16], "n_lists": [2, 2], "list_length": [2, 3]},
        "validation_examples": 8,
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
    }


ARMS: dict[str, dict[str, Any]] = {
    "meta": {},
    "meta in one layer": {"mechanism_options": {"layers": [1]}},
    "matched": {"mechanism": "matched"},
    "pause": {"mechanism": "none"},
    "plain": {"mechanism": "none"},
    "post-norm": {"norm": "post"},
    "scores transformed": {"position": "alibi"},
}


@pytest.fixture
def random_subject(list_data: dict[str, Any], tmp_path: Path) -> MakeSubject:
    """A function that makes a subject with random weights, of an arm in `ARMS`."""

    def make(
        arm: str = "meta", n: int = 40, placement: str = "every", task: dict[str, Any] | None = None, **options: Any
    ) -> Subject:
        torch.manual_seed(0)
        sizes = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 64}
        module = MetaTokenLM(**{**sizes, **ARMS[arm], **options})
        with torch.no_grad():
            for parameter in module.model.parameters():
                if parameter.dim() == 2:
                    torch.nn.init.normal_(parameter, std=0.3)
        data = TaskDataModule(**{**list_data, **(task or {})}, meta_placement="none" if arm == "plain" else placement)
        return subject_of(module, data, n)

    return make
