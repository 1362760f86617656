"""The wheel in an environment of its own and an empty folder: what somebody gets who has no clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

SOURCES = ("lightning_metatok", "conf", "sweeps", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path) -> str:
    """Its output; nothing of the repository is on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with the wheel; other packages are those of this environment, and the clone is not among them."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = repository / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("lightning_metatok-*.whl")
    venv.create(folder / "env", with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(folder / "env"), "platbase": str(folder / "env")})
    (Path(paths["purelib"]) / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    run(*pip, "--python", folder / "env" / "bin" / "python", "install", "--no-deps", wheel, cwd=folder)
    return folder / "env"


def test_init_and_the_first_command_work_from_nothing(environment: Path, tmp_path: Path) -> None:
    where = run(environment / "bin" / "python", "-c", "import lightning_metatok as m; print(m.__file__)", cwd=tmp_path)
    assert where.startswith(str(environment)), "the wheel's, not the clone's"
    command = environment / "bin" / "lightning-metatok"
    said = run(command, "init", ".", cwd=tmp_path)
    (first,) = [line.strip() for line in said.splitlines() if "fit --config conf/debug.yaml" in line]
    assert first.split()[-3:] == ["fit", "--config", "conf/debug.yaml"]
    run(command, *first.split()[-3:], cwd=tmp_path)
    assert (tmp_path / "runs" / "debug" / "checkpoints" / "last.ckpt").is_file()
