"""A user's mistake ends in exit code 2 and one line that names key or file, value and what was expected.

A start that fails leaves no run folder behind.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.system.helpers import documents, run, succeed

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """A function that runs a command, checks how it fails, and returns its one line."""

    def check(*arguments: str | Path) -> str:
        outcome = run(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.err.startswith("lightning-metatok: error: ")
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.endswith("\n")
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "run").exists(), "a start that fails leaves no run folder"
        return outcome.err

    return check


@pytest.fixture
def fit(debug: list[str], tmp_path: Path) -> list[str]:
    """The start of a command that would train."""
    return ["fit", *debug, f"--run_dir={tmp_path / 'run'}"]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--model.d_modle=3", "'--model.d_modle'; did you mean 'model.d_model'?"),
        ("--model.optimizer.lrr=1", "'--model.optimizer.lrr'; did you mean 'model.optimizer.lr'?"),
        ("--data.blocksize=64", "'--data.blocksize'; did you mean 'data.block_size'?"),
        ("--trainer.max_step=3", "'--trainer.max_step'; did you mean 'trainer.max_steps'?"),
        ("--data.cropus=x.txt", "did you mean 'data.corpus'?"),
        ("--rundir=x", "did you mean 'run_dir'?"),
        ("--model.d_model=abc", "model.d_model=abc: expected int"),
        ("--model.d_model=3.5", "model.d_model=3.5: expected int"),
        ("--data.batch_size=many", "data.batch_size=many: expected int"),
        ("--model.meta_attention=perhaps", "model.meta_attention=perhaps: expected bool"),
        ("--trainer.precision=fp17", "trainer.precision='fp17': expected one of auto"),
        ("--model.position=rotery", "model.position='rotery': expected one of learned, none, rotary; did you mean"),
        ("--model.activation=gelo", "model.activation=gelo: expected one of"),
        ("--model.attention_backend=sdp", "did you mean 'sdpa'?"),
        ("--model.n_heads=3", "model.n_heads=3: expected a divisor of d_model=32"),
        ("--model.dropout=1.5", "model.dropout=1.5: expected a number in [0, 1)"),
        ("--model.optimizer.min_lr=1", "model.optimizer.min_lr=1.0, model.optimizer.lr=0.003: expected 0 <= min_lr"),
        ("--model.optimizer.decay_steps=0", "model.optimizer.decay_steps=0: expected 1 or more"),
        ("--trainer.accumulate_grad_batches=3", "trainer.val_check_interval=10: expected a multiple of"),
        ("--model.vocab_size=400", "model.vocab_size=400: expected at least 512"),
        ("--data.meta_fraction=0.7", "data.meta_fraction=0.7: expected a share between 0 and 0.5"),
        ("--data.meta_fraction=-0.1", "data.meta_fraction=-0.1: expected a share between 0 and 0.5"),
        ("--data.meta_placement=randm", "data.meta_placement=randm: expected one of"),
        ("--data.vocab_size=100", "data.vocab_size=100: expected at least 258"),
        ("--data.batch_size=0", "data.batch_size=0: expected a positive number"),
        ("--data.block_size=1000000", "data.corpus: its train split has"),
        ("--data.block_size=10000", "data.corpus: its validation split has"),
        ("--trainer.accelerator=gpuu", "gpuu"),
        ("--trainer.strategy=dpp", "dpp"),
        ("--trainer.devices=0", "trainer: "),
        ("--data.corpus=nowhere.txt", "data.corpus='nowhere.txt': no such file"),
        ("--data.corpus=/nowhere/", "data.corpus='/nowhere/'"),
        ("--data.tokenizer=nowhere.json", "data.tokenizer='nowhere.json': no such file"),
        ("--ckpt_path=nowhere.ckpt", "--ckpt_path=nowhere.ckpt: no such file"),
        ("--model.init_from=nowhere.ckpt", "model.init_from=nowhere.ckpt: no such file"),
        ("--config=conf/bse.yaml", "--config=conf/bse.yaml: no such file"),
    ],
)
def test_an_option_that_cannot_work_is_named(option: str, expected: str, fit: list[str], refused: Refused) -> None:
    assert expected in refused(*fit, option)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {d_modle: 3}", "unknown key 'model.d_modle'; did you mean 'model.d_model'?"),
        ("modle: {d_model: 3}", "unknown key 'modle.d_model'; did you mean 'model.d_model'?"),
        ("data: {meta_fractoin: 0.1}", "unknown key 'data.meta_fractoin'; did you mean 'data.meta_fraction'?"),
        ("model: {d_model: wide}", "model.d_model=wide: expected int"),
        ("model: {d_ff: '${model.d_modle}'}", "d_modle"),
        ("model: [", "not YAML"),
        ("", "expected keys and values"),
    ],
)
def test_a_mistake_in_a_file_is_named(
    text: str, expected: str, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert expected in refused(*fit, f"--config={tmp_path / 'mine.yaml'}")


def test_blocks_longer_than_a_learned_table_are_refused(fit: list[str], refused: Refused) -> None:
    line = refused(*fit, "--model.position=learned", "--data.block_size=128", "--model.max_positions=64")
    assert "data.block_size=128" in line
    assert "model.max_positions=64" in line


def test_meta_slots_outside_the_block_are_refused(fit: list[str], refused: Refused) -> None:
    line = refused(*fit, "--data.meta_placement=fixed", "--data.meta_positions=[3,64]")
    assert "data.meta_positions: slot 64" in line


# -- text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.txt", b"", "no document with text in it"),
        ("blank.txt", b" \n\n", "no document with text in it"),
        ("empty.jsonl", b"", "no document with text in it"),
        ("short.txt", b"one line\nand another\n", "data.corpus"),
        ("latin.txt", b"fine\nna\xefve\n", "latin.txt, line 2: byte 0xef"),
        ("latin.jsonl", b'{"text": "fine"}\n{"text": "na\xefve"}\n', "latin.jsonl, line 2: byte 0xef"),
        ("other.jsonl", b'{"txet": "a"}\n', "no field 'text' (data.text_field); found 'txet'; did you mean 'txet'?"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": \n', "broken.jsonl, line 2: not JSON"),
        ("number.jsonl", b'{"text": 3}\n', "line 1: field 'text' holds int, expected text"),
        ("notes.doc", b"text", "notes.doc"),
    ],
)
def test_text_that_cannot_be_read_is_named_with_its_line(
    name: str, content: bytes, expected: str, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in refused(*fit, f"--data.corpus={tmp_path / name}")


def test_a_tokenizer_without_meta_tokens_is_refused(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
                                     merges=[]))  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "plain.json"))
    line = refused(*fit, f"--data.tokenizer={tmp_path / 'plain.json'}")
    assert "plain.json" in line
    assert "<|meta|>" in line
    assert "--data.add_special_tokens=true" in line


# -- checkpoints


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


def test_reading_verbs_ask_for_a_checkpoint(debug: list[str], refused: Refused, tmp_path: Path) -> None:
    for verb in ("validate", "test", "predict"):
        assert "--ckpt_path" in refused(verb, *debug, f"--run_dir={tmp_path / 'run'}")


# -- folders and disks


def test_a_file_in_the_way_of_the_run_folder_is_named(debug: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refused("fit", *debug, f"--run_dir={tmp_path / 'file' / 'run'}")
    assert f"run_dir={tmp_path / 'file' / 'run'}" in line


def test_a_mistake_says_one_line_in_a_fresh_process(repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_metatok", "fit", f"--config={repository}/conf/debug.yaml",
         f"--run_dir={tmp_path}/run", "--data.corpus=nowhere.txt"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lightning-metatok: error: data.corpus='nowhere.txt': no such file\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mount of a tmpfs failed: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # memory maps and event files may still be open


def test_a_full_disk_under_the_cache_is_named_and_a_later_run_works(
    fit: list[str], small_disk: Path, refused: Refused, tmp_path: Path
) -> None:
    options = [*fit, f"--data.cache_dir={small_disk}", "--trainer.max_steps=1", "--model.optimizer.warmup_steps=0"]
    line = refused(*options)
    assert "no space left" in line
    assert str(small_disk) in line
    assert not [path for path in small_disk.rglob("*") if path.suffix == ".partial"]
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    succeed(*options)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_full_disk_under_the_run_folder_is_said_in_one_line(quick: list[str], small_disk: Path) -> None:
    outcome = run("fit", *quick, f"--run_dir={small_disk / 'run'}")
    assert outcome.code == 2, outcome
    assert outcome.err.count("\n") == 1, outcome.err
    assert "No space left on device" in outcome.err
