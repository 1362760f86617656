"""A prepared folder is there whole or not at all, and is built once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_metatok.data.cache import MANIFEST, cache_folder, fingerprint, prepared
from lightning_metatok.errors import UserError


def write(folder: Path) -> None:
    (folder / "data").write_text("content")


def refuse(folder: Path) -> None:
    raise AssertionError("built a second time")


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "new" / "cache", "a", write)
    assert (folder / "data").read_text() == "content"
    assert prepared(tmp_path / "new" / "cache", "a", refuse) == folder


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, "a", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    prepared(tmp_path, "a", write)


@pytest.mark.parametrize("damage", ["delete", "truncate", "no manifest"])
def test_a_damaged_folder_is_built_again(tmp_path: Path, damage: str) -> None:
    folder = prepared(tmp_path, "a", write)
    if damage == "delete":
        (folder / "data").unlink()
    elif damage == "truncate":
        os.truncate(folder / "data", 3)
    else:
        (folder / MANIFEST).unlink()
    assert (prepared(tmp_path, "a", write) / "data").read_text() == "content"


BUILD = """
import sys, time
from pathlib import Path
from lightning_metatok.data.cache import prepared
root = Path(sys.argv[1])
def build(folder):
    with open(root / "builds", "a") as file:
        file.write("x")
    (folder / "data").write_text("half")
    time.sleep(float(sys.argv[2]))
    (folder / "data").write_text("content")
print((prepared(root, "a", build) / "data").read_text())
"""


def start(root: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_two_processes_at_once_build_once_and_both_read_the_whole(tmp_path: Path) -> None:
    processes = [start(tmp_path, 1.0) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["content\n"] * 2
    assert (tmp_path / "builds").read_text() == "x"


def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a.partial" / "data").exists():
        assert time.monotonic() < deadline, "the build never started"
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "a").exists()
    assert (prepared(tmp_path, "a", write) / "data").read_text() == "content"
    assert not (tmp_path / "a.partial").exists()


def test_a_full_disk_is_named_and_keeps_nothing_half_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a small file system here (needs root)")

    def fill(folder: Path) -> None:
        (folder / "data").write_bytes(bytes(1 << 20))

    try:
        with pytest.raises(UserError, match=r"no space left .*nothing half-written was kept"):
            prepared(disk, "a", fill)
        assert [path.name for path in disk.iterdir() if path.is_dir()] == []
        prepared(disk, "a", write)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write prepared data to .*file/cache.*data\.cache_dir"):
        prepared(tmp_path / "file" / "cache", "a", write)


def test_an_error_of_the_build_itself_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        open(tmp_path / "absent").close()

    with pytest.raises(FileNotFoundError):
        prepared(tmp_path / "cache", "a", fail)


def test_the_cache_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder(str(tmp_path / "given")) == tmp_path / "given"
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LIGHTNING_METATOK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lightning-metatok"


def test_a_fingerprint_depends_on_contents_and_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
