"""FSDP2 on two processes with gloo, started as `srun` starts them; its checkpoints are read by one process."""

import os
import shutil
import socket
from pathlib import Path

import pytest
import torch

from lightning_metatok.lit.checkpoints import shards
from lightning_metatok.lit.checkpoints.folder import forget_after, newest_valid
from lightning_metatok.lit.checkpoints.io import fault_of, read_manifest, read_state
from tests.system.helpers import curve, run, succeed
from tests.system.torture import launch, same

STEPS = [
    *("--trainer.max_steps=6", "--trainer.val_check_interval=3", "--trainer.log_every_n_steps=1"),
    *("--trainer.precision=32-true", "--model.optimizer.warmup_steps=0", "--data.validation_blocks=8"),
]
ALONE = ["--trainer.strategy=auto", "--trainer.num_nodes=1", "--data.batch_size=8"]


def two_nodes(folder: Path, arguments: list[str], strategy: str = "fsdp2") -> list[int]:
    """Call `lightning-metatok` on two ranks, each of which is alone on a node; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"SLURM_JOB_ID": port, "SLURM_JOB_NAME": "x", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    job |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0", "OMP_NUM_THREADS": "1"}
    job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    devices = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=2", "--data.batch_size=4"]
    children = [
        launch(
            [*arguments, *devices, f"--trainer.strategy={strategy}"],
            folder / f"console-{rank}",
            {**job, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)},
        )
        for rank in (1, 0)
    ]
    return [child.wait() for child in reversed(children)]


@pytest.fixture(scope="module")
def alone(quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    succeed("fit", *quick, *STEPS, "--data.batch_size=8", f"--run_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def sharded(quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two processes, whose name was taken: both go to the next one."""
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "run").mkdir()
    (folder / "run" / "something").touch()
    codes = two_nodes(folder, ["fit", *quick, *STEPS, f"--run_dir={folder / 'run'}"])
    assert codes == [0, 0], [(folder / f"console-{rank}").read_text() for rank in (0, 1)]
    return folder / "run-2"


def losses(folder: Path) -> list[float]:
    """Validation losses at steps 3 and 6."""
    found = curve(folder, "loss/val")
    assert [step for step, _ in found] == [3, 6]
    return [loss for _, loss in found]


@pytest.mark.slow
def test_pieces_on_two_ranks_learn_as_a_whole_does(sharded: Path, alone: Path) -> None:
    assert losses(sharded) == pytest.approx(losses(alone), rel=1e-4)


def test_the_ranks_share_a_folder_and_each_has_a_log(sharded: Path) -> None:
    around = sorted(path.name for path in sharded.parent.iterdir())
    assert around == ["console-0", "console-1", "run", "run-2"]
    assert sorted(path.name for path in (sharded / "logs").iterdir()) == ["rank-1.log"]
    assert len(list(sharded.glob("events.out.tfevents.*"))) == 1
    assert (sharded.parent / "console-1").read_text() == ""
    assert "run folder:" in (sharded.parent / "console-0").read_text()


def test_one_process_reads_the_shards_and_goes_on_from_them(sharded: Path, quick: list[str], tmp_path: Path) -> None:
    last = sharded / "checkpoints" / "last.ckpt"
    succeed("validate", f"--ckpt_path={last}", *ALONE)
    assert curve(sharded / "validate", "loss/val")[0][1] == pytest.approx(losses(sharded)[-1], rel=1e-6)
    assert "the old miller" in succeed("generate", f"--ckpt_path={last}", "--prompt=the old miller")
    half = sharded / "checkpoints" / "step-3.ckpt"
    succeed("fit", *quick, *STEPS, *ALONE, f"--ckpt_path={half}", f"--run_dir={tmp_path / 'on'}")
    ((step, loss),) = curve(tmp_path / "on", "loss/val")
    assert (step, loss) == (6, pytest.approx(losses(sharded)[-1], rel=1e-4))


@pytest.mark.parametrize("source", ["sharded", "alone"])
def test_two_ranks_go_on_from_shards_and_from_a_whole_checkpoint(
    source: str, sharded: Path, alone: Path, quick: list[str], tmp_path: Path
) -> None:
    before = {"sharded": sharded, "alone": alone}[source]
    half = before / "checkpoints" / "step-3.ckpt"
    command = ["fit", *quick, *STEPS, f"--ckpt_path={half}", f"--run_dir={tmp_path / 'on'}"]
    assert two_nodes(tmp_path, command) == [0, 0], (tmp_path / "console-0").read_text()
    ((_, loss),) = curve(tmp_path / "on", "loss/val")
    assert loss == pytest.approx(losses(before)[-1], rel=1e-4)
    if source == "sharded":  # bit for bit, since nothing is added in another order
        one, two = (read_state(f / "checkpoints" / "last.ckpt", key="x") for f in (sharded, tmp_path / "on"))
        assert all(same(one[name], two[name]) for name in ("state_dict", "optimizer_states", "lr_schedulers"))


def test_shards_hold_what_a_whole_checkpoint_holds(sharded: Path, alone: Path) -> None:
    one, two = (read_state(f / "checkpoints" / "step-3.ckpt", key="x") for f in (sharded, alone))
    assert {name: weight.shape for name, weight in one["state_dict"].items()} == {
        name: weight.shape for name, weight in two["state_dict"].items()
    }
    moments, others = (state["optimizer_states"][0]["state"] for state in (one, two))
    assert moments.keys() == others.keys()
    for number, moment in moments.items():
        assert {k: v.shape for k, v in moment.items()} == {k: v.shape for k, v in others[number].items()}


def test_a_damaged_shard_is_refused_and_the_one_before_is_taken(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(sharded / "checkpoints", folder, symlinks=True)
    newest = folder / "step-6.ckpt"
    manifest = read_manifest(newest)
    assert sorted(manifest["files"]) == ["step-6.ckpt", *(f"step-6.shards/{p.name}" for p in shard_files(newest))]
    assert len(shard_files(newest)) == 2
    victim = shard_files(newest)[1]
    content = bytearray(victim.read_bytes())
    content[-5] ^= 0xFF
    victim.write_bytes(content)
    fault = fault_of(newest)
    assert fault is not None
    assert fault.startswith(f"step-6.shards/{victim.name} is not what its manifest says")
    outcome = run("generate", f"--ckpt_path={newest}", "--prompt=x")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert newest_valid(folder, lambda message: None) == folder / "step-3.ckpt"
    victim.unlink()
    newest.with_suffix(".json").unlink()  # nothing vouches for it: it is read, and a piece is not there
    outcome = run("generate", f"--ckpt_path={newest}", "--prompt=x")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    forget_after(folder, 3)
    assert sorted(os.listdir(folder)) == ["last.ckpt", "put-aside", "step-3.ckpt", "step-3.json", "step-3.shards"]
    assert sorted(os.listdir(folder / "put-aside")) == ["step-6.ckpt", "step-6.shards"]


def test_taken_apart_and_put_together_is_the_same() -> None:
    state = {"state_dict": {"a.b": torch.ones(2)}, "global_step": 3, "callbacks": {}}
    state["optimizer_states"] = [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1.0}]}]
    rest, tensors = shards.taken_apart(state)
    assert sorted(tensors) == ["optimizer.0.0.step", "state_dict.a.b"]
    assert same(shards.put_together(rest, tensors), state)


def test_what_cannot_be_sharded_is_refused_in_one_line(quick: list[str], repository: Path, tmp_path: Path) -> None:
    task = repository / "conf" / "task" / "list_recall_nano.yaml"
    outcome = run("fit", f"--config={task}", "--trainer.strategy=fsdp2", f"--run_dir={tmp_path / 'run'}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert "trainer.strategy=fsdp2: expected ddp or auto with data.task" in outcome.err
    for given, expected in (
        (["--trainer.strategy=fsdp"], "trainer.strategy='fsdp': expected fsdp2"),
        (["--trainer.strategy=fsdp2", "--trainer.precision=64-true"], "trainer.precision='64-true': expected one of"),
    ):
        outcome = run("fit", *quick, *given, f"--run_dir={tmp_path / 'run'}")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert expected in outcome.err
        assert not (tmp_path / "run").exists()


def test_where_rank_0_cannot_start_the_others_say_why(quick: list[str], tmp_path: Path) -> None:
    command = ["fit", *quick, "--ckpt_path=nowhere.ckpt", f"--run_dir={tmp_path / 'run'}"]
    assert two_nodes(tmp_path, command) == [2, 2]
    assert (tmp_path / "console-0").read_text().startswith("lightning-metatok: error: --ckpt_path=nowhere.ckpt")
    assert "rank 0: --ckpt_path=nowhere.ckpt" in (tmp_path / "console-1").read_text()


def shard_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint's shards."""
    return sorted(checkpoint.with_suffix(shards.SUFFIX).iterdir())
