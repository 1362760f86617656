"""benchmarks/compare_commits.py: commits that compute the same are called bit-equal, others differ at a named step."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--data.max_documents=10",
    "--bigram.max_tokens=1000",
)
CHANGE = {
    "unchanged": ('"""The language model', '"""A language model'),
    "changed": ("of_part = std /", "of_part = 1.05 * std /"),
}


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_commits_are_equal_or_differ_at_a_named_step(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--shared", str(ROOT), str(clone))
    first = git(clone, "rev-parse", "HEAD")
    found = {}
    for name, (old, new) in CHANGE.items():
        git(clone, "checkout", "--quiet", first)
        file = next(f for f in (clone / "lightning_metatok/model").rglob("*.py") if old in f.read_text())
        file.write_text(file.read_text().replace(old, new))
        git(clone, "commit", "--quiet", "--all", "--message", name)
        command = [sys.executable, "benchmarks/compare_commits.py", first, git(clone, "rev-parse", "HEAD")]
        found[name] = subprocess.run(
            [*command, "--config=conf/debug.yaml", *QUICK], cwd=clone, capture_output=True, text=True
        )
    assert found["unchanged"].returncode == 0, found["unchanged"].stdout + found["unchanged"].stderr
    assert "bit-equal over 2 steps and in the final weights" in found["unchanged"].stdout
    assert found["changed"].returncode == 1
    assert "NOT equal; first: step 1: " in found["changed"].stdout
    assert git(clone, "worktree", "list").count("\n") == 0
