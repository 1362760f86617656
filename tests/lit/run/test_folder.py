"""A run never writes over another run."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.lit.run.folder import Claim, claim_run_folder


def test_a_new_run_takes_the_next_free_name(tmp_path: Path) -> None:
    first = claim_run_folder(tmp_path / "runs" / "base")
    (first / "config.yaml").write_text("a: 1")
    second = claim_run_folder(tmp_path / "runs" / "base")
    (second / "config.yaml").write_text("a: 1")
    third = claim_run_folder(tmp_path / "runs" / "base")
    assert [p.name for p in (first, second, third)] == ["base", "base-2", "base-3"]


def test_a_resumed_run_stays_where_its_checkpoint_is(tmp_path: Path) -> None:
    folder = claim_run_folder(tmp_path / "base")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert claim_run_folder(folder, resume_from=checkpoint) == folder
    assert claim_run_folder(folder, resume_from=tmp_path / "elsewhere.ckpt") != folder


def _claim_and_mark(wanted: str) -> str:
    folder = claim_run_folder(wanted)
    (folder / "mark").touch()
    return str(folder)


def test_runs_that_start_one_after_the_other_from_two_processes_get_different_folders(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        folders = list(pool.map(_claim_and_mark, [str(tmp_path / "base")] * 2))
    assert len({*folders, _claim_and_mark(str(tmp_path / "base"))}) >= 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="run_dir"):
        claim_run_folder(tmp_path / "file" / "base")
    with pytest.raises(UserError, match="this is a file"):
        claim_run_folder(tmp_path / "file")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("holds", [True, False])
def test_a_refused_run_takes_its_files_away_only_from_a_folder_that_it_holds(tmp_path: Path, holds: bool) -> None:
    folder = tmp_path / "run"
    claim = Claim(lambda _: holds)
    claim.watch(folder)
    claim.take(folder)
    folder.mkdir()
    (folder / "config.yaml").write_text("of whoever holds it\n")
    claim.__exit__(UserError, UserError("refused"), None)
    assert folder.exists() != holds
