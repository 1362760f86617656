"""config.yaml of a run folder: what the run does, as it was given, without secrets; and what it may have imported."""

import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_metatok.yaml_files import followed
from tests.system.helpers import run, succeed, write_corpus

SECRET = "sesame-4711"


def config(folder: Path, name: str = "config.yaml") -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load((folder / name).read_text(encoding="utf-8")))


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Options that need the environment: the key of a callback, and where the corpus lies."""
    (tmp_path / SECRET).mkdir()
    monkeypatch.setenv("SOME_CORPUS", str(write_corpus(tmp_path / SECRET / "stories.jsonl")))
    monkeypatch.setenv("SOME_KEY", SECRET)
    callback = "{class_path: tests.cli.foreign.Keyed, init_args: {key: 'my ${oc.env:SOME_KEY}'}}"
    return ["--data.corpus=${oc.env:SOME_CORPUS}", "--data.validation_corpus=null", f"--trainer.callbacks=[{callback}]"]


def test_no_file_of_a_run_holds_a_value_of_the_environment(
    quick: list[str], secret: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    succeed("fit", *quick, *secret, f"--run_dir={folder}", "--trainer.max_steps=10")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []
    given = config(folder)
    assert given["data"]["corpus"] == "${oc.env:SOME_CORPUS}"
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["RunState"]["config"]
    assert saved["data.corpus"] == "${oc.env:SOME_CORPUS}"
    # The copy runs, goes on and is read, as the environment has it.
    succeed("fit", "--config", folder / "config.yaml", "--ckpt_path=auto", "--trainer.max_steps=10")
    succeed("validate", "--ckpt_path", folder / "checkpoints" / "last.ckpt", "--trust")
    monkeypatch.delenv("SOME_CORPUS")
    outcome = run("validate", "--ckpt_path", folder / "checkpoints" / "last.ckpt", "--trust")
    assert outcome.code == 2
    assert "SOME_CORPUS" in outcome.err


def test_a_copy_follows_what_is_given_to_it(quick: list[str], tmp_path: Path) -> None:
    succeed("fit", *quick, f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=10")
    assert config(tmp_path / "run")["model"]["optimizer"]["decay_steps"] == "${trainer.max_steps}"  # type: ignore[index]
    longer = f"--run_dir={tmp_path / 'longer'}", "--trainer.max_steps=20"
    succeed("fit", "--config", tmp_path / "run" / "config.yaml", *longer)
    assert followed(config(tmp_path / "longer"))["model"]["optimizer"]["decay_steps"] == 20
    saved = torch.load(tmp_path / "longer" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["callbacks"]["RunState"]["config"]["model.optimizer.decay_steps"] == 20


def test_a_run_that_goes_on_says_what_it_does_now(quick: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = *quick, f"--run_dir={folder}", "--model.optimizer.decay_steps=30"
    succeed("fit", *options, "--trainer.max_steps=10")
    before = (folder / "config.yaml").read_bytes()
    succeed("fit", *options, "--trainer.max_steps=10", "--ckpt_path=auto")
    assert (folder / "config.yaml").read_bytes() == before, "nothing has changed but how it was started"
    changed = "--model.optimizer.lr=0.001", "--allow_changed=[model.optimizer.lr]"
    succeed("fit", *options, *changed, "--trainer.max_steps=20", "--ckpt_path=auto")
    now = config(folder)
    assert (now["model"]["optimizer"]["lr"], now["trainer"]["max_steps"]) == (0.001, 20)  # type: ignore[index]
    assert (now["ckpt_path"], now["allow_changed"]) == (None, [])
    assert (folder / "config-before-step-10.yaml").read_bytes() == before
    succeed("fit", "--config", folder / "config.yaml", "--ckpt_path=auto", "--trainer.max_steps=30")
    assert config(folder)["trainer"]["max_steps"] == 30
    assert config(folder, "config-before-step-20.yaml") == now


def test_the_line_at_a_stop_is_the_command_that_goes_on(quick: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "it's a run"
    (folder).mkdir(parents=True)
    (folder / "config.yaml").write_text("a: run\n")
    callback = "[{class_path: tests.cli.foreign.Keyed, init_args: {key: 'a b', stop_after: 5}}]"
    outcome = run("fit", *quick, f"--run_dir={folder}", "--trainer.callbacks", callback)
    assert outcome.code == 143
    assert "stopped by SIGTERM at step 5; --ckpt_path=auto goes on from there: lightning-metatok fit " in outcome.err
    mine = folder.with_name("it's a run-2")
    assert config(mine)["run_dir"] == str(mine)
    program, *command = shlex.split(outcome.err.rpartition("goes on from there: ")[2])
    assert program == "lightning-metatok"
    assert all(option in command for option in quick)
    succeed(*command)
    assert torch.load(mine / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 20
    assert sorted(path.name for path in folder.parent.iterdir()) == ["it's a run", "it's a run-2"]


TIMER = "lightning.pytorch.callbacks.Timer"
NESTED = {"class_path": TIMER, "init_args": {"duration": {"class_path": "evil_package.X"}}}
FOREIGN = {
    "callback": ("trainer", "callbacks", [{"class_path": "evil_package.Callback"}]),
    "by-name": ("trainer", "callbacks", ["evil_package.Callback"]),
    "alone": ("trainer", "callbacks", "evil_package.Callback"),
    "logger": ("trainer", "logger", {"class_path": "evil_package.sub.Logger", "init_args": {}}),
    "plugin": ("trainer", "plugins", "evil_package.Plugin"),
    "strategy": ("trainer", "strategy", "evil_package.Strategy"),
    "profiler": ("trainer", "profiler", {"class_path": "evil_package.Profiler"}),
    "argument": ("trainer", "callbacks", [NESTED]),
    "file": ("trainer", "logger", "evil_package.yaml"),
    "group": ("model", None, "evil_package.yaml"),
    "interpolation": ("trainer", "profiler", "${oc.env:EVIL}"),
}


@pytest.mark.parametrize(
    ("name", "verb"),
    [*((name, "validate") for name in FOREIGN), *(("callback", verb) for verb in ("test", "predict", "probe", "fit"))],
)
def test_a_strangers_configuration_imports_nothing(
    name: str, verb: str, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, group, (_, key, value) = tmp_path / "theirs", FOREIGN[name][0], FOREIGN[name]
    shutil.copytree(fitted, folder, symlinks=True)
    content = config(folder)
    if key is None:
        content[group] = value
    else:
        content[group][key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package" / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVIL", "evil_package.Profiler")
    before = sorted(path.name for path in folder.rglob("*"))
    outcome = run(verb, "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert str(folder / "config.yaml") in outcome.err
    assert "--trust" in outcome.err
    assert "EVIL" in outcome.err or "evil_package" in outcome.err
    assert not (tmp_path / "imported").exists()
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_what_the_user_trusts_or_names_is_imported(fitted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(fitted, folder, symlinks=True)
    content = config(folder)
    content["trainer"]["callbacks"] = [{"class_path": "tests.cli.foreign.Keyed"}]
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    last = folder / "checkpoints" / "last.ckpt"
    assert run("validate", "--ckpt_path", last).code == 2
    succeed("validate", "--ckpt_path", last, "--trust")
    succeed("validate", "--config", folder / "config.yaml", "--ckpt_path", last)


def test_classes_of_this_package_and_its_libraries_are_not_asked_about(fitted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(fitted, folder, symlinks=True)
    content = config(folder)
    content["trainer"]["callbacks"] = [{"class_path": "lightning.pytorch.callbacks.Timer"}]
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert run("validate", "--ckpt_path", folder / "checkpoints" / "last.ckpt").code == 0


def test_a_checkpoint_that_is_read_with_another_base_says_so(quick: list[str], tmp_path: Path) -> None:
    """The checkpoint is a layer, too: what its run was given stays, and what differs is named."""
    succeed("fit", *quick, "--model.position_options.base=20000", f"--run_dir={tmp_path / 'run'}")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    plain = succeed("validate", "--ckpt_path", last)
    assert "is read with another" not in plain
    scaled = succeed("validate", "--ckpt_path", last, "--model.position_options={scaling: linear, factor: 4.0}")
    assert "model.position_options.scaling=linear, trained with none" in scaled
    assert "model.position_options.base" not in scaled
    other = succeed("validate", *quick, "--ckpt_path", last)
    assert "model.position_options.base=10000.0, trained with 20000: the checkpoint is read with another" in other


@pytest.mark.parametrize(("precision", "kind"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_every_precision_that_is_offered_trains(
    precision: str, kind: torch.dtype, quick: list[str], tmp_path: Path
) -> None:
    options = *quick, f"--trainer.precision={precision}", f"--run_dir={tmp_path / 'run'}"
    assert run("fit", *options, "--trainer.max_steps=10", "--model.optimizer.decay_steps=20").code == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    weights = torch.load(last, weights_only=True)["state_dict"].values()
    assert {weight.dtype for weight in weights if weight.is_floating_point()} == {kind}
    assert run("fit", "--ckpt_path", last, "--trainer.max_steps=20").code == 0
    assert torch.load(last, weights_only=True)["global_step"] == 20
