"""The README's commands do what they say: make targets exist, and every `lightning-metatok` line runs."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.system.helpers import run, succeed, write_corpus

README = Path(__file__).resolve().parents[2] / "README.md"
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
MAKE = [line for line in LINES if line.startswith("make ")]
COMMANDS = [line for line in LINES if line.startswith("lightning-metatok ")]
ABLATIONS = ("lengths", "positions", "embedding", "placement")
SMALL = [
    "--model.n_layers=1",
    "--model.n_heads=2",
    "--model.d_model=16",
    "--model.optimizer.warmup_steps=0",
    "--data.vocab_size=300",
    "--data.block_size=32",
    "--data.batch_size=2",
    "--data.validation_blocks=2",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--ablation.windows=1",
    "--sample.max_new_tokens=2",
]
SMALL_TASK = [
    *(option for option in SMALL if option.startswith("--model.")),
    "--trainer.max_steps=6",
    "--trainer.val_check_interval=2",
    "--data.batch_size=2",
    "--data.curriculum=null",
    "--data.validation_examples=20",
    "--data.test_examples=20",
    *(f"--{ablation}.{option}" for ablation in ABLATIONS for option in ("multiples=[1]", "n=20")),
]

SMALL_PROBES = [
    "--probe.lens.steps=3",
    "--probe.readout.furthest=1",
    "--probe.sharpening.queries=2",
    "--probe.rate_distortion.width=1",
]


@pytest.fixture(scope="session")
def task_runs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folders that the README's commands for tasks leave."""
    folder, conf = tmp_path_factory.mktemp("task-runs"), repository / "conf"
    for name, arm in (("list_recall_nano", "meta"), ("pause", "pause")):
        configs = [f"--config={conf / 'task' / 'list_recall_nano.yaml'}", f"--config={conf / 'arm' / arm}.yaml"]
        succeed("fit", *configs, *SMALL_TASK, f"--run_dir={folder / name}")
    return folder


@pytest.fixture
def desk(repository: Path, fitted: Path, task_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks as a reader's does after `make demo` and the tasks of the README, with text of their own."""
    (tmp_path / "conf").symlink_to(repository / "conf")
    shutil.copytree(fitted, tmp_path / "runs" / "base")
    for folder in task_runs.iterdir():
        shutil.copytree(folder, tmp_path / "runs" / folder.name)
    write_corpus(tmp_path / "my_text.jsonl", count=40, field="body")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_commands_are_enough_to_start() -> None:
    assert MAKE[:2] == ["make demo", "make test"]


def test_every_line_is_checked_here() -> None:
    assert [line for line in LINES if line not in MAKE + COMMANDS] == []
    assert {line.split()[1] for line in COMMANDS} >= {"fit", "validate", "test", "predict", "generate"}


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_the_target(line: str, repository: Path) -> None:
    done = subprocess.run(
        ["make", "-n", *shlex.split(line)[1:]], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def small_sweep(source: Path, target: Path) -> None:
    """The sweep of the README with one arm, one seed and tiny runs."""
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    small = (option.removeprefix("--").partition("=") for option in SMALL_TASK)
    content["set"] |= {key: yaml.safe_load(value) for key, _, value in small}
    content |= {"arms": dict(list(content["arms"].items())[:1]), "seeds": [1], "collect": ["loss/val"]}
    target.parent.mkdir()
    target.write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(line: str, desk: Path, corpus: Path, repository: Path) -> None:
    arguments = shlex.split(line)[1:]
    if arguments[0] == "sweep":
        small_sweep(repository / arguments[2], desk / arguments[2])
        outcome = run(*arguments)
        assert outcome.code == 0, outcome
        assert "1 runs" in " ".join((outcome.out + outcome.err).split())
        return
    if arguments[0] in ("report", "dashboard"):
        small_sweep(repository / arguments[1], desk / arguments[1])
        assert run("sweep", "run", arguments[1]).code == 0
        succeed(*arguments, *(["--no_serve", "true"] if arguments[0] == "dashboard" else []))
        assert any((desk / "runs" / "sweeps" / "recall_arms" / arguments[0]).iterdir())
        return
    if arguments[0] == "probe":
        arguments += ["--examples=150", *SMALL_PROBES]
    if arguments[0] == "fit" and "conf/task/" in line:
        out = succeed(*arguments, *SMALL_TASK)
        assert out.strip()
        return
    if arguments[0] == "fit":
        own_text = any(argument.startswith("--data.corpus=") for argument in arguments)
        arguments += SMALL if own_text else [*SMALL, f"--data.corpus={corpus}"]
    out = succeed(*arguments)
    assert out.strip()
    if arguments[0] == "fit":
        assert (desk / "runs" / "base-2" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!https?:)[^)#]+)\)", README.read_text(encoding="utf-8")))
def test_a_link_leads_somewhere(target: str, repository: Path) -> None:
    assert (repository / target).exists()
