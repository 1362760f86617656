"""A checkpoint counts once its manifest does; nothing valid is lost on the way, and nothing in it runs."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.folder import checkpoints, forget_after, link_last, newest_valid, prune
from lightning_metatok.lit.checkpoints.going_on import newest_to_go_on_from
from lightning_metatok.lit.checkpoints.io import RunCheckpointIO, fault_of, read_state


def save(folder: Path, step: int, loss: float | None = None, size: int = 10) -> Path:
    path = folder / f"step-{step}.ckpt"
    weights = torch.full((size,), float(step))
    state = {"state_dict": {"w": weights, "tied": weights}, "global_step": step}
    RunCheckpointIO().save_checkpoint(state, path, storage_options={"loss": loss})
    return path


def test_three_files_and_nothing_else(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == ["step-3.ckpt", "step-3.json", "step-3.safetensors"]
    assert fault_of(path) is None
    assert load_file(tmp_path / "step-3.safetensors")["w"].tolist() == [3.0] * 10
    assert read_state(path, key="x")["state_dict"]["tied"].tolist() == [3.0] * 10


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damage_anywhere_is_named_and_the_one_before_is_taken(suffix: str, damage: str, tmp_path: Path) -> None:
    old, new = save(tmp_path, 1), save(tmp_path, 2)
    victim = new.with_suffix(suffix)
    content = bytearray(victim.read_bytes())
    if damage == "remove":
        victim.unlink()
    elif damage == "cut":
        victim.write_bytes(content[:-20])
    else:
        content[len(content) // 2] ^= 0xFF
        victim.write_bytes(content)
    said: list[str] = []
    assert newest_valid(tmp_path, said.append) == old
    assert len(said) == 1
    assert "step-2" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("kills", ["kill_at_any_moment_of_a_write", "kill_during_the_very_first_write"])
def test_a_kill_while_a_checkpoint_is_written_costs_nothing_valid(kills: str, tmp_path: Path, repository: Path) -> None:
    """In a process that has one thread: of one with several, a fork may wait for ever."""
    script = (
        f"import pathlib, sys; from tests.lit.checkpoints.test_io import {kills} as go; go(pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def kill_at_any_moment_of_a_write(tmp_path: Path) -> None:
    """Real processes, killed after 0 to 60 ms of writing, again and again into the same folder."""
    save(tmp_path, 0)
    first = 1
    for attempt in range(24):
        child = os.fork()
        if child == 0:
            step = first
            while True:
                path = save(tmp_path, step, size=30_000)
                link_last(path)
                prune(tmp_path, keep_last=1, keep_best=0)
                step += 1
        time.sleep(0.0025 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = newest_valid(tmp_path, lambda _: None)
        assert found is not None
        assert read_state(found, key="x")["global_step"] == int(found.stem.split("-")[1])
        if (tmp_path / "last.ckpt").is_symlink():
            assert fault_of((tmp_path / "last.ckpt").resolve()) is None
        first = int(found.stem.split("-")[1]) + 1
        forget_after(tmp_path, first - 1)
        assert fault_of((tmp_path / "last.ckpt").resolve()) is None
        assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(("left", "goes"), [(".tmp-step-8", True), (".tmpEnDttu", True), (".tmpfiles.d", False)])
def test_what_a_kill_leaves_goes_whoever_was_writing(tmp_path: Path, left: str, goes: bool) -> None:
    """safetensors writes into a temporary file of its own, beside the target."""
    save(tmp_path, 7)
    (tmp_path / left).write_bytes(b"half")
    forget_after(tmp_path, 7)
    assert (tmp_path / left).exists() is not goes


def kill_during_the_very_first_write(tmp_path: Path) -> None:
    """What a kill left half done is no damage: nothing was ever saved."""
    begun = 0
    for attempt in range(24):
        folder = tmp_path / str(attempt) / "checkpoints"
        child = os.fork()
        if child == 0:
            save(folder, 7, size=300_000)
            os.kill(os.getpid(), signal.SIGKILL)
        while not folder.is_dir():
            time.sleep(0.0005)
        time.sleep(0.0005 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = newest_to_go_on_from(folder.parent, lambda _: None)
        if found is None:
            begun += bool(os.listdir(folder))
            forget_after(folder, 0)
            assert os.listdir(folder) == []
        else:
            assert fault_of(found) is None
    assert begun > 0, "no kill came early enough"


@pytest.mark.parametrize("lost", [".json", ".ckpt", ".safetensors"])
def test_what_a_complete_checkpoint_lost_is_never_taken_for_a_write_that_a_kill_ended(
    lost: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "checkpoints", 7)
    path.with_suffix(lost).unlink()
    with pytest.raises(UserError, match=r"no checkpoint .*step-7.* is missing.*to start over, move"):
        newest_to_go_on_from(tmp_path, lambda _: None)


def test_many_damaged_ones_are_counted_and_the_line_stays_short(tmp_path: Path) -> None:
    for step in range(1, 10):
        save(tmp_path / "checkpoints", step).with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"step-9.json is missing; .*; .* and 6 more\)"):
        newest_to_go_on_from(tmp_path, lambda _: None)


def test_a_last_checkpoint_that_is_no_link_is_put_aside_before_one_takes_its_name(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"the only copy")
    link_last(save(tmp_path, 2))
    assert (tmp_path / "put-aside" / "last.ckpt").read_bytes() == b"the only copy"
    assert (tmp_path / "last.ckpt").resolve() == tmp_path / "step-2.ckpt"


def test_going_back_takes_later_ones_that_count_and_puts_aside_those_that_do_not(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step-3.ckpt").write_bytes(b"torn")
    for _ in range(2):  # a second of the same name is put aside, too
        forget_after(tmp_path, 1)
        assert [path.name for path in checkpoints(tmp_path)] == ["step-1.ckpt"]
        assert (tmp_path / "put-aside" / "step-3.ckpt").read_bytes() == b"torn"
        save(tmp_path, 3).with_suffix(".json").write_text("{}")
    assert (tmp_path / "put-aside" / "step-3.json-2").read_text() == "{}"


def test_the_newest_and_the_best_stay_and_the_last_link_is_never_broken(tmp_path: Path) -> None:
    for step, loss in enumerate((3.0, 1.0, 2.0, 4.0, 5.0)):
        link_last(save(tmp_path, step, loss))
        prune(tmp_path, keep_last=2, keep_best=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-4.ckpt", "step-3.ckpt", "step-1.ckpt"]
    assert (tmp_path / "last.ckpt").resolve() == tmp_path / "step-4.ckpt"


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_newest_one_never_costs_the_only_valid_one(damage: str, tmp_path: Path) -> None:
    old, new = save(tmp_path, 1), save(tmp_path, 2)
    content = bytearray(new.read_bytes())
    content[len(content) // 2] ^= 0xFF  # the size stays: only a checksum tells
    new.write_bytes(content if damage == "flip" else b"torn")
    link_last(new)
    prune(tmp_path, keep_last=1, keep_best=0)
    assert newest_valid(tmp_path, lambda _: None) == old


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = save(tmp_path, 1)
    monkeypatch.setattr("lightning_metatok.lit.checkpoints.io._save_weights", fail)
    with pytest.raises(RuntimeError, match="no such thing"):
        save(tmp_path, 2)
    assert newest_valid(tmp_path, lambda _: None) == old
    assert sorted(os.listdir(tmp_path)) == ["step-1.ckpt", "step-1.json", "step-1.safetensors"]


def fail(*_: Any) -> None:
    raise RuntimeError("no such thing")


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(zipped: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    content = {"state_dict": {}, "hyper_parameters": Malicious(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    for read in (lambda: read_state(path, key="--ckpt_path"), lambda: RunCheckpointIO().load_checkpoint(path)):
        with pytest.raises(
            UserError, match=r"evil\.ckpt: cannot be read as a checkpoint \((UnpicklingError|UserWarning)\)"
        ):
            read()
    assert not mark.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())  # it does run elsewhere
    assert mark.exists()


def test_of_equal_losses_the_newest_is_the_best(tmp_path: Path) -> None:
    for step, loss in enumerate((2.0, 1.0, 1.0, 1.0, 3.0, 4.0)):
        save(tmp_path, step, loss)
    prune(tmp_path, keep_last=1, keep_best=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-5.ckpt", "step-3.ckpt", "step-2.ckpt"]


def test_going_back_to_before_the_first_checkpoint_takes_the_link_away(tmp_path: Path) -> None:
    link_last(save(tmp_path, 4))
    forget_after(tmp_path, 2)
    assert checkpoints(tmp_path) == []
    assert not os.path.lexists(tmp_path / "last.ckpt")


def test_going_back_moves_the_link_first(tmp_path: Path) -> None:
    save(tmp_path, 2)
    link_last(save(tmp_path, 4))
    forget_after(tmp_path, 2)
    assert (tmp_path / "last.ckpt").resolve() == tmp_path / "step-2.ckpt"
    assert [path.name for path in checkpoints(tmp_path)] == ["step-2.ckpt"]
