"""Classes of others by their dotted paths train, go on, are read and generate; a stranger's files import none."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.system.conftest import corpus, debug, fitted, quick  # noqa: F401  (fixtures)
from tests.system.helpers import run, succeed

LAB = '''
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from lightning_metatok.model.attention.layers import Plan
from lightning_metatok.model.attention.patterns import Causal
from lightning_metatok.model.branch import Branch
from lightning_metatok.model.mechanisms import Mechanism
from lightning_metatok.model.positions import PositionEncoding
from lightning_metatok.probes import Finding, Probe

Path(__file__).with_name("imported").touch()


class Waves(PositionEncoding):
    """Adds sines."""

    embeds = True

    def __init__(self, sizes, *, base: float = 2.0) -> None:
        super().__init__()
        self.register_buffer("w_D", base ** -torch.arange(sizes.d_model).float(), persistent=False)

    def embed(self, position_ids_BT, keep_BT):
        added_BTD = torch.sin(position_ids_BT[..., None] * self.w_D)
        return added_BTD if keep_BT is None else added_BTD * keep_BT[..., None]


class Near(Causal):
    """Causal under another name."""


class Lines(Mechanism):
    """Adds a branch of all tokens."""

    @property
    def idle(self):
        return False

    def names(self, layer):
        return ("line",)

    def branches(self, config, layer, attention):
        return [(Branch("line", "line", "norm_line", "line", remembers=False), Line(config.d_model))]

    def plans(self, forward):
        return {"line": Plan()}


class Line(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.weights = nn.Linear(d_model, d_model)

    def forward(self, x_BTD, plan=None, memory=None):
        return self.weights(x_BTD)


class Count(Probe):
    """Counts tokens."""

    name = "count"

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def run(self, subject):
        n = sum(batch.tokens_BT.numel() for batch in subject.batches) * self.times
        return [Finding("count", pd.DataFrame({"tokens": [n]}), Figure(), f"{n} tokens")]


class Like(Count):
    """Has the name of another probe."""

    name = "cosine"


class Chant:
    """A corpus."""

    def documents(self):
        return (f"verse {n}: " + "and on, and on. " * 60 for n in range(60))

    def fingerprint(self):
        return ["chant", 60]
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the module, which lies in the folder that commands run in."""
    name = f"lab_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(LAB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    return name


def forget(lab: str, folder: Path) -> None:
    """As in a new process: the module is not imported yet."""
    sys.modules.pop(lab, None)
    (folder / "imported").unlink(missing_ok=True)


@pytest.mark.slow
def test_classes_by_their_paths_train_go_on_and_are_read(lab: str, quick: list[str], tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "run"
    axes = {"position": f"{lab}.Waves", "pattern": f"{lab}.Near", "mechanism": f"{lab}.Lines"}
    given = [*(f"--model.{key}={path}" for key, path in axes.items()), "--model.position_options.base=3"]
    given += [f"--data.corpus={lab}.Chant", "--model.optimizer.decay_steps=20"]
    succeed("fit", *quick, *given, f"--run_dir={folder}", "--trainer.max_steps=10")
    last = folder / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    assert {key: saved["hyper_parameters"][key] for key in axes} == axes
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["position"] == f"{lab}.Waves"
    assert [name for name in saved["state_dict"] if "line" in name]
    succeed("fit", *quick, *given, f"--run_dir={folder}", "--trainer.max_steps=20", "--ckpt_path=auto")
    assert torch.load(last, weights_only=True)["global_step"] == 20
    forget(lab, tmp_path)
    for verb in ("validate", "test", "predict", "probe", "fit"):
        outcome = run(verb, "--ckpt_path", last, "--trainer.max_steps=20")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert all(path in outcome.err for path in (*axes.values(), f"{lab}.Chant", "--trust"))
    prompt = "generate", "--ckpt_path", last, "--prompt", "and on", "--max_new_tokens", "3"
    outcome = run(*prompt)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert all(path in outcome.err for path in (*axes.values(), "--trust"))
    assert not (tmp_path / "imported").exists()
    for verb in ("validate", "test"):
        succeed(verb, "--ckpt_path", last, "--trust")
    succeed(*prompt, "--trust")
    succeed("validate", "--config", folder / "config.yaml", "--ckpt_path", last)  # a file that the user names
    asked = "probe", "--ckpt_path", last, "--examples=4", f"--run_dir={tmp_path / 'asked'}", f"--probes=[{lab}.Count]"
    succeed(*asked, "--trust")
    table = tmp_path / "asked" / "probe" / "count.csv"
    once = int(table.read_text().split()[1])
    succeed(*asked, "--probe.count.times=3", "--trust")
    assert int(table.read_text().split()[1]) == 3 * once


def test_a_probe_by_its_path_that_cannot_be_asked_is_named(lab: str, fitted: Path) -> None:  # noqa: F811
    probe = "probe", "--ckpt_path", fitted / "checkpoints" / "last.ckpt", f"--run_dir={fitted.parent / 'asked'}"
    for name, expected in {
        f"{lab}.Like": "its name 'cosine' is that of another probe",
        f"{lab}.Waves": "expected a class that derives from lightning_metatok.probes.base.Probe",
        f"{lab}.Conut": "did you mean 'Count'?",
        "no_such_lab.X": "no_such_lab cannot be imported",
    }.items():
        outcome = run(*probe, f"--probes=[{name}]")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert expected in outcome.err
    outcome = run(*probe, f"--probes=[{lab}.Count]", "--probe.count.tims=1")
    assert "did you mean 'probe.count.times'?" in outcome.err


STRANGE = {
    "position": ("model", "position", "LAB.Waves"),
    "pattern": ("model", "pattern", "LAB.Near"),
    "mechanism": ("model", "mechanism", "LAB.Lines"),
    "corpus": ("data", "corpus", "LAB.Chant"),
    "reference": ("model", "position", "${run_dir}"),
    "environment": ("model", "position", "${oc.env:NO_SUCH_KEY,LAB.Waves}"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("verb", ["validate", "probe", "fit"])
def test_a_strangers_configuration_imports_no_class_of_an_axis(
    name: str,
    verb: str,
    lab: str,
    fitted: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder, (group, key, value) = tmp_path / "theirs", STRANGE[name]
    shutil.copytree(fitted, folder, symlinks=True)
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content[group][key] = value.replace("LAB", lab)
    if name == "reference":
        content["run_dir"] = f"{lab}.Waves"
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    outcome = run(verb, "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert f"--config={folder / 'config.yaml'}: expected code of lightning_metatok" in outcome.err
    assert f"{lab}." in outcome.err
    assert "--trust" in outcome.err
    assert not (tmp_path / "imported").exists()


def test_a_strangers_probes_are_not_imported(lab: str, fitted: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "theirs"
    shutil.copytree(fitted, folder, symlinks=True)
    config = folder / "config.yaml"
    config.write_text(f"{config.read_text()}\nprobes: [{lab}.Count]\n")
    outcome = run("probe", "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert f"{lab}.Count" in outcome.err
    assert not (tmp_path / "imported").exists()


@pytest.mark.slow
def test_a_strangers_checkpoint_imports_nothing(lab: str, fitted: Path, tmp_path: Path) -> None:  # noqa: F811
    """Its own choices are not those of the configuration beside it."""
    folder = tmp_path / "theirs"
    shutil.copytree(fitted, folder, symlinks=True)
    content = torch.load(fitted / "checkpoints" / "last.ckpt", weights_only=True)
    alone = tmp_path / "alone.ckpt"
    for key, kind in (("position", "Waves"), ("pattern", "Near"), ("mechanism", "Lines")):
        torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], key: f"{lab}.{kind}"}}, alone)
        config = f"--config={folder / 'config.yaml'}"
        for command in (
            ("validate", config, "--ckpt_path", alone),
            ("test", config, "--ckpt_path", alone),
            ("predict", config, "--ckpt_path", alone),
            ("probe", config, "--ckpt_path", alone, f"--run_dir={tmp_path / 'probed'}"),
            ("fit", config, f"--run_dir={tmp_path / 'new'}", f"--model.init_from={alone}"),
            ("fit", config, f"--run_dir={tmp_path / 'new'}", f"--model.init_from={alone}", "--model.init_new=[layers]"),
            ("generate", "--ckpt_path", alone, "--prompt", "x"),
        ):
            outcome = run(*command)
            assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
            assert f"{lab}.{kind}" in outcome.err
            assert not (tmp_path / "imported").exists()
