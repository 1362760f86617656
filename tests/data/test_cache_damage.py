"""Whatever happens to prepared data on disk is noticed, said, and made again bit for bit."""

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lightning_metatok.data import cache
from lightning_metatok.data.blocks import PackedBlocks
from lightning_metatok.data.cache import MANIFEST, checksum, damage, prepared
from lightning_metatok.data.examples import Examples
from lightning_metatok.data.injection import InjectionRule
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.data.stream import BatchBuilder, StepDataset, StepSampler
from lightning_metatok.tasks import build, symbol_tokenizer
from lightning_metatok.tasks.sets import prepared_examples

LARGEST = {"tokens": "train.bin", "tokenizer": "tokenizer.json", "examples": "tokens.npy"}
OTHER = {"tokens": "train.starts.npy", "tokenizer": "tokenizer.json", "examples": "flags.npy"}


def flip(path: Path, at: float, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)


def change(path: Path, edit: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def swap(one: Path, other: Path) -> None:
    kept = one.read_bytes()
    shutil.copyfile(other, one)
    other.write_bytes(kept)


def keep_times(edit: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
    """A disk that loses a bit changes neither size nor times."""

    def damaged(big: Path, small: Path) -> None:
        status = big.stat()
        edit(big, small)
        os.utime(big, ns=(status.st_atime_ns, status.st_mtime_ns))

    return damaged


def foreign(big: Path, small: Path) -> None:
    """The whole folder of other prepared data, under this name."""

    def other(folder: Path) -> None:
        (folder / big.name).write_bytes(b"\0" * 64)

    made = prepared(big.parent.parent / "elsewhere", "other", other)
    shutil.rmtree(big.parent)
    shutil.copytree(made, big.parent)


def folder_for_file(big: Path, small: Path) -> None:
    big.unlink()
    big.mkdir()


def pipe_for_file(big: Path, small: Path) -> None:
    big.unlink()
    os.mkfifo(big)


def file_for_folder(big: Path, small: Path) -> None:
    shutil.rmtree(big.parent)
    big.parent.write_text("no folder")


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "first bit": lambda big, small: flip(big, 0),
    "a bit in the middle": lambda big, small: flip(big, 0.5, 3),
    "last bit": lambda big, small: flip(big, 1, 7),
    "a bit, times kept": keep_times(lambda big, small: flip(big, 0.3)),
    "a bit of the other file": lambda big, small: flip(small, 0.9),
    "zeroed": lambda big, small: big.write_bytes(bytes(big.stat().st_size)),
    "a zeroed page": keep_times(
        lambda big, small: big.write_bytes(big.read_bytes()[:-64] + bytes(min(64, big.stat().st_size)))
    ),
    "truncated": lambda big, small: os.truncate(big, big.stat().st_size - 2),
    "emptied": lambda big, small: os.truncate(big, 0),
    "extended": lambda big, small: big.write_bytes(big.read_bytes() + b"\0\0"),
    "bytes in another order": lambda big, small: big.write_bytes(big.read_bytes()[::-1]),
    "removed": lambda big, small: big.unlink(),
    "swapped": lambda big, small: swap(big, big.parent / MANIFEST) if big == small else swap(big, small),
    "a file more": lambda big, small: (big.parent / "position_ids.npy").write_bytes(b"x"),
    "folder in its place": folder_for_file,
    "pipe in its place": pipe_for_file,
    "file in place of the folder": file_for_folder,
    "manifest removed": lambda big, small: (big.parent / MANIFEST).unlink(),
    "manifest emptied": lambda big, small: os.truncate(big.parent / MANIFEST, 0),
    "manifest cut": lambda big, small: os.truncate(big.parent / MANIFEST, 30),
    "manifest zeroed": lambda big, small: (big.parent / MANIFEST).write_bytes(bytes(99)),
    "manifest not UTF-8": lambda big, small: (big.parent / MANIFEST).write_bytes(b"\xff\xfe{}"),
    "manifest a list": lambda big, small: (big.parent / MANIFEST).write_text("[1, 2]"),
    "manifest nested": lambda big, small: (big.parent / MANIFEST).write_text("[" * 100_000),
    "manifest huge": lambda big, small: (big.parent / MANIFEST).write_text(" " * (2 << 20)),
    "manifest without files": lambda big, small: change(big.parent / MANIFEST, lambda m: m.update(files={})),
    "manifest of no mapping": lambda big, small: change(big.parent / MANIFEST, lambda m: m.update(files=7)),
    "manifest of sizes alone": lambda big, small: change(
        big.parent / MANIFEST, lambda m: m.update(files={name: f["size"] for name, f in m["files"].items()})
    ),
    "manifest of version 1": lambda big, small: change(big.parent / MANIFEST, lambda m: m.update(version=1)),
    "manifest of a later version": lambda big, small: change(big.parent / MANIFEST, lambda m: m.update(version=99)),
    "manifest of another folder": lambda big, small: change(big.parent / MANIFEST, lambda m: m.update(name="other")),
    "a foreign folder": foreign,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make(kind: str, corpus_file: Path, root: Path) -> Path:
    """Prepare what a run prepares; return the folder of the given kind."""
    if kind == "examples":
        task = build("list_recall", tokenizer=symbol_tokenizer())
        folder = prepared_examples(task, 20, 3, "train", root)
        assert len(Examples.load(folder)) == 20
        return folder
    _, store = prepare(DataConfig(str(corpus_file), vocab_size=270, cache_dir=str(root)))
    return store.folder if kind == "tokens" else next(root.glob("tokenizer-????????????????????????????????"))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("kind", LARGEST)
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_noticed_said_and_mended_bit_for_bit(
    name: str, kind: str, corpus_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make(kind, corpus_file, tmp_path)
    before = contents(folder)
    DAMAGES[name](folder / LARGEST[kind], folder / OTHER[kind])
    capfd.readouterr()
    assert make(kind, corpus_file, tmp_path) == folder
    said = capfd.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith(f"lightning-metatok: warning: {folder}: ")
    assert contents(folder) == before
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".partial", ".damaged")]
    make(kind, corpus_file, tmp_path)
    assert capfd.readouterr().err == "", "what was mended is believed"


def write(folder: Path) -> None:
    with open(folder.parent / "builds", "a") as file:
        file.write("x")
    time.sleep(0.3)
    (folder / "data").write_bytes(bytes(range(256)))


def open_and_read(root: Path) -> bytes:
    return (prepared(root, "a", write) / "data").read_bytes()


def test_processes_that_find_damage_at_once_mend_it_once(tmp_path: Path) -> None:
    folder = prepared(tmp_path, "a", write)
    flip(folder / "data", 0.5)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(open_and_read, [tmp_path] * 4, chunksize=1) == [bytes(range(256))] * 4
    assert (tmp_path / "builds").read_text() == "xx"


def test_a_process_that_reads_the_old_files_is_not_disturbed(tmp_path: Path) -> None:
    folder = prepared(tmp_path, "a", write)
    mapped = np.memmap(folder / "data", dtype=np.uint8, mode="r")
    (folder / "more").touch()
    seen: list[bool] = []

    def rebuild(partial: Path) -> None:
        seen.append((folder / "data").exists())
        write(partial)

    prepared(tmp_path, "a", rebuild)
    assert seen == [True], "the old folder stays until the new one is whole"
    assert mapped.tolist() == list(range(256))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_after_damage_are_those_before_with_any_workers(
    workers: int, corpus_file: Path, tmp_path: Path
) -> None:
    def batches() -> list[list[int]]:
        tokenizer, store = prepare(DataConfig(str(corpus_file), vocab_size=270, cache_dir=str(tmp_path)))
        rule = InjectionRule(fraction=0.1)
        blocks = PackedBlocks(store, "train", rule.source_length(64))
        builder = BatchBuilder(blocks, rule, 64, tokenizer.meta_id, seed=1, batch_size=4)
        loader = DataLoader(
            StepDataset(builder),
            sampler=StepSampler(0, 6),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )
        return [batch.tokens_BT.flatten().tolist() for batch in loader]

    before = batches()
    file = next(tmp_path.glob("tokens-*/train.bin"))
    ids = np.fromfile(file, dtype=np.uint16)
    ids[::50] ^= 4  # stays inside the vocabulary
    ids.tofile(file)
    assert batches() == before


def test_a_damaged_folder_that_cannot_be_mended_is_kept_and_named(tmp_path: Path) -> None:
    folder = prepared(tmp_path, "a", write)
    flip(folder / "data", 0.5)

    def fail(partial: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, "a", fail)
    assert damage(folder) == "data is not what was written"
    assert open_and_read(tmp_path) == bytes(range(256))


def test_a_checksum_is_that_of_the_bytes_however_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured at 8 GB/s and more where this was written."""
    content = np.random.default_rng(0).bytes((1 << 20) + 17)
    (tmp_path / "x").write_bytes(content)
    whole = checksum(tmp_path / "x")
    monkeypatch.setattr(cache, "CHUNK", 1000)
    assert checksum(tmp_path / "x") == whole
