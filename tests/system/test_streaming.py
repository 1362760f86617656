"""A run on text that it tokenises as it reads, killed twice, once behind an epoch border, ends like one that never was.

Twenty cuts in all: four runs killed twice by SIGKILL, and twelve readings that begin anew at a random step.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.batch import Batch
from lightning_metatok.lit import MetaTokenDataModule
from tests.system.helpers import documents, run, write_corpus
from tests.system.test_resume import said, two_ranks
from tests.system.torture import TEXT, differences, launch

STEPS, BORDER = 24, 11
"""Micro-batches of two blocks in a run and in an epoch. Checkpoints are behind 8, 16 and 24."""
BUFFER = 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    MetaTokenizer.train(documents(20), 400).save(path)
    return path


@pytest.fixture(scope="module")
def text(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of the data: two of eight documents train, 22 blocks and a rest."""
    corpus = write_corpus(tmp_path_factory.mktemp("text") / "stories.jsonl", 8)
    return {
        "corpus": str(corpus),
        "tokenizer": str(tokenizer),
        "shuffle_buffer": BUFFER,
        "held_out_documents": 6,
        "max_documents": 2,
        "block_size": 64,
    }


@pytest.fixture(scope="module")
def options(quick: list[str], text: dict[str, Any]) -> list[str]:
    return ["fit", *quick, *TEXT, *(f"--data.{key}={value}" for key, value in text.items())]


@pytest.fixture(scope="module")
def whole(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    child = launch([*options, f"--run_dir={folder / 'run'}"], folder / "log", own_cache(folder))
    assert child.wait() == 0, child.log.read_text()
    return folder / "run"


def own_cache(folder: Path) -> dict[str, str]:
    """So that marks are those of one run alone."""
    return {"LIGHTNING_METATOK_CACHE": str(folder / "cache")}


@pytest.mark.parametrize("case", range(4))
def test_a_run_killed_twice_ends_as_one_that_never_was(
    case: int, options: list[str], whole: Path, tmp_path: Path
) -> None:
    """It goes on from 8, in the first epoch, and from 16, in the second; each time over a border."""
    draw = random.Random(case)
    kills = [draw.randrange(9, 15), draw.randrange(17, STEPS)]
    for number, workers in zip((*kills, None), draw.choices((0, 1, 2), k=3), strict=True):
        command = [*options, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto", f"--data.num_workers={workers}"]
        child = launch(command, tmp_path / "log", own_cache(tmp_path))
        if number is None:
            assert child.wait() == 0, child.log.read_text()
        else:
            begun = 0 if number == kills[0] else 8  # where the checkpoint stands that it goes on from
            assert child.wait_for("training", number - begun), child.log.read_text()
            time.sleep(draw.random() / 50)
            child.strike(signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("kind", ["corpus", "mixture"])
def test_readings_that_begin_anywhere_read_the_same(kind: str, text: dict[str, Any], tmp_path: Path) -> None:
    draw = random.Random(0)
    if kind == "mixture":
        second = write_corpus(tmp_path / "second.jsonl", 9)
        text = {**text, "corpus": {text["corpus"]: 2, str(second): 1}, "max_documents": 3}

    def batches(first: int, last: int, ranks: int, workers: int) -> list[list[Batch]]:
        options = {**text, "cache_dir": str(tmp_path), "batch_size": 4 // ranks, "num_workers": workers}
        found = []
        for rank in range(ranks):
            data = MetaTokenDataModule(**options, separate_documents=True)
            data.setup("fit")
            builder = data._builder(data._training_blocks())
            found.append([builder.batch(step, rank, ranks) for step in range(first, last)])
            assert data._streamed is not None
            n_blocks.add(data._streamed.n_blocks)
            data.teardown("fit")
        return found

    n_blocks: set[int | None] = set()
    whole = {ranks: batches(0, 30, ranks, 0) for ranks in (1, 2)}
    for _ in range(12):
        ranks, first = draw.choice((1, 2)), draw.randrange(26)
        for found, wanted in zip(batches(first, first + 4, ranks, draw.choice((0, 1, 2))), whole[ranks], strict=True):
            for one, other in zip(found, wanted[first : first + 4], strict=True):
                assert torch.equal(one.tokens_BT, other.tokens_BT)
                assert torch.equal(one.document_ids_BT, other.document_ids_BT)
    (known,) = n_blocks - {None}
    assert known == 2 * BORDER if kind == "corpus" else 4 * 30 / 5 < known < 4 * 26, "there are borders of epochs"


@pytest.mark.slow
def test_two_processes_on_a_mixture_go_on_where_they_stopped(
    quick: list[str], text: dict[str, Any], tmp_path: Path
) -> None:
    """DDP over gloo, stopped behind step 5 of 12, in the second of three epochs; then with other workers."""
    second = write_corpus(tmp_path / "second.jsonl", 9)
    mixture = {**text, "corpus": f"{{{text['corpus']}: 2, {second}: 1}}", "max_documents": 3}
    mixture["cache_dir"] = tmp_path / "cache"
    given = ["fit", *quick, *TEXT, "--model.optimizer.decay_steps=12", "--data.num_workers=0"]
    given += [f"--data.{key}={value}" for key, value in mixture.items()]
    assert two_ranks([*given, f"--run_dir={tmp_path / 'whole'}"], tmp_path / "whole", tmp_path / "log") == [0, 0], said(
        tmp_path
    )
    for stop, workers in ((5, 2), (12, 1)):
        changed = [f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto", f"--trainer.max_steps={stop}"]
        codes = two_ranks(
            [*given, *changed, f"--data.num_workers={workers}"], tmp_path / "run", tmp_path / f"log-{stop}"
        )
        assert codes == [0, 0], said(tmp_path)
    assert differences(tmp_path / "run", tmp_path / "whole") == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"shuffle_buffer": 0}, "data.shuffle_buffer=0: expected 1 block or more"),
        ({"tokenizer": "null"}, "data.shuffle_buffer=8: expected a data.tokenizer"),
        ({"held_out_documents": 0}, "data.held_out_documents=0: expected 1 or more"),
        ({"shuffle_buffer": "null"}, "data.held_out_documents=6: goes with data.shuffle_buffer alone"),
        ({"held_out_documents": 8}, "no document with text behind its first 8, which are held out"),
        ({"max_documents": 1, "block_size": 4096}, "less than one block of 4096"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    changed: dict[str, Any], expected: str, options: list[str], tmp_path: Path
) -> None:
    outcome = run(*options, *(f"--data.{key}={value}" for key, value in changed.items()), f"--run_dir={tmp_path / 'r'}")
    assert outcome.code == 2
    assert expected in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_task_reads_no_stream(repository: Path) -> None:
    outcome = run(
        "fit", f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}", "--data.shuffle_buffer=8"
    )
    assert outcome.code == 2
    assert outcome.err == "lightning-metatok: error: unknown option '--data.shuffle_buffer'\n"
    assert len(outcome.err.splitlines()) == 1


def test_nothing_of_it_is_prepared(options: list[str]) -> None:
    outcome = run("prepare", *options[1:])
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "data.shuffle_buffer=8: expected null" in outcome.err
