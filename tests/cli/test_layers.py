"""Options whose value is a mapping are merged key by key, whichever layer says what, and follow their name."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.cli.training import TrainingCLI
from lightning_metatok.cli.training_parser import quiet
from lightning_metatok.errors import UserError

Parse = Callable[..., dict[str, Any]]


class Reader(TrainingCLI):
    """Parses, and does nothing else."""

    def before_instantiate_classes(self) -> None:
        """Nothing."""

    def instantiate_classes(self) -> None:
        """Nothing."""


@pytest.fixture
def parse(tmp_path: Path, repository: Path) -> Parse:
    """A function that parses layers over conf/debug.yaml: texts of files, and options."""

    def parse(*layers: str, base: str = "debug") -> dict[str, Any]:
        argv = [f"--config={repository / 'conf' / base}.yaml"]
        for number, layer in enumerate(layers):
            if not layer.startswith("-"):
                (tmp_path / f"{number}.yaml").write_text(layer)
                layer = f"--config={tmp_path / f'{number}.yaml'}"
            argv += layer.split(" ", 1) if layer.startswith("--model.position_options.base ") else [layer]
        with warnings.catch_warnings():
            quiet()
            config: dict[str, Any] = Reader("fit", argv).config.as_dict()
        return config

    return parse


FIRST = [
    "model: {position_options: {base: 20000.0, fraction: 0.5}}",
    "model.position_options: {base: 20000.0, fraction: 0.5}",
    "--model.position_options={base: 20000.0, fraction: 0.5}",
    '--model={"position_options": {"base": 20000.0, "fraction": 0.5}}',
]
SECOND = [
    "model: {position_options: {scaling: linear, factor: 4.0}}",
    '--model.position_options={"scaling": "linear", "factor": 4.0}',
    "--model.position_options={scaling: linear, factor: 4.0}",
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_a_second_mapping_leaves_what_the_first_one_said(first: str, second: str, parse: Parse) -> None:
    expected = {"base": 20000.0, "fraction": 0.5, "scaling": "linear", "factor": 4.0}
    assert parse(first, second)["model"]["position_options"] == expected
    assert parse(second, first)["model"]["position_options"] == expected


def test_dotted_keys_merge_with_mappings_on_both_sides(parse: Parse) -> None:
    layers = FIRST[0], "--model.position_options.base=30000", SECOND[1], "--model.position_options.fraction=1e-1"
    expected = {"base": 30000, "fraction": 0.1, "scaling": "linear", "factor": 4.0}
    assert parse(*layers)["model"]["position_options"] == expected
    assert parse("--model.position_options.base 5e3", SECOND[0])["model"]["position_options"]["base"] == 5000.0


def test_the_last_layer_wins_key_by_key(parse: Parse) -> None:
    layers = FIRST[0], "--model.position_options={base: 1.5e+4}", "model: {position_options: {fraction: 0.25}}"
    assert parse(*layers)["model"]["position_options"] == {"base": 15000.0, "fraction": 0.25}


def test_null_starts_again(parse: Parse) -> None:
    hour = "trainer: {max_time: {hours: 1}}"
    again = parse(hour, "--trainer.max_time=null", "trainer: {max_time: {minutes: 5}}")
    assert again["trainer"]["max_time"] == {"minutes": 5}
    assert parse("trainer: {max_time: null}", "--trainer.max_time=null")["trainer"]["max_time"] is None
    assert parse("trainer: {max_time: {hours: 1}}", "--trainer.max_time=null")["trainer"]["max_time"] is None


def test_options_of_a_task_merge(parse: Parse) -> None:
    base = parse(base="task/list_recall_nano")["data"]["task_options"]
    assert len(base) > 1
    assert "n_lists" in base
    for second in ("data: {task_options: {n_lists: [2, 2]}}", "--data.task_options={n_lists: [2, 2]}"):
        config = parse(second, base="task/list_recall_nano")
        assert config["data"]["task_options"] == {**base, "n_lists": [2, 2]}


def test_max_time_merges_too(parse: Parse) -> None:
    config = parse("trainer: {max_time: {hours: 1}}", "--trainer.max_time={minutes: 5}")
    assert config["trainer"]["max_time"] == {"hours": 1, "minutes": 5}


def test_mappings_among_the_arguments_of_a_class_merge(parse: Parse) -> None:
    logger = "trainer: {logger: {class_path: tests.cli.foreign.Tagged, init_args: {name: x, tags: {a: 1}}}}"
    for second in (
        "trainer: {logger: {init_args: {tags: {b: 2}}}}",
        "trainer: {logger: {class_path: tests.cli.foreign.Tagged, init_args: {tags: {b: 2}}}}",
        "--trainer.logger.init_args.tags={b: 2}",
        "--trainer.logger.tags={b: 2}",
        "--trainer.logger.init_args.tags.b=2",
    ):
        assert parse(logger, second)["trainer"]["logger"]["init_args"] == {"name": "x", "tags": {"a": 1, "b": 2}}


ALIBI = ["model: {position: alibi}", "--model.position=alibi", '--model={"position": "alibi"}']


@pytest.mark.one_in(3)
@pytest.mark.parametrize("changed", ALIBI)
@pytest.mark.parametrize("first", [*FIRST, "--model.position_options.base=20000"])
def test_another_name_drops_the_options_of_the_old_one(
    first: str, changed: str, parse: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    if first.startswith("--") and changed.startswith("--"):
        changed = ALIBI[0]  # one layer: see below
    assert parse(first, changed)["model"]["position_options"] == {}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "model.position=alibi, rotary before: model.position_options={base: 20000" in said
    assert "dropped" in said


def test_a_layer_that_changes_the_name_brings_its_options(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    for layers in (
        (FIRST[0], "model: {position: xpos, position_options: {base: 500.0}}"),
        (FIRST[0], "model: {position_options: {base: 500.0}, position: xpos}"),
        (FIRST[0], "--model.position=xpos", "--model.position_options.base=500.0"),
        (FIRST[0], "--model.position_options.base=500.0", "--model.position=xpos"),
    ):
        assert parse(*layers)["model"]["position_options"] == {"base": 500.0}
        assert "fraction: 0.5} belonged to that" in capsys.readouterr().err


def test_the_same_name_again_drops_nothing(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(FIRST[0], "--model.position=rotary", SECOND[0])["model"]["position_options"]["base"] == 20000.0
    assert parse("model: {position: alibi}", "model: {position: rotary}")["model"]["position_options"] == {}
    assert capsys.readouterr().err == ""


def test_another_optimizer_drops_the_options_of_the_old_one(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    sgd = "model: {optimizer: {name: torch.optim.SGD, options: {momentum: 0.5}}}"
    more = "model: {optimizer: {options: {nesterov: true}}}"
    assert parse(sgd, more)["model"]["optimizer"]["options"] == {"momentum": 0.5, "nesterov": True}
    assert capsys.readouterr().err == ""
    assert parse(sgd, "--model.optimizer.name=muon")["model"]["optimizer"]["options"] == {}
    said = capsys.readouterr().err
    assert "model.optimizer.name=muon, torch.optim.SGD before: model.optimizer.options={momentum: 0.5} belonged" in said


def test_another_task_drops_the_options_of_the_old_one(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--data.task=parity", base="task/list_recall_nano")["data"]["task_options"] == {}
    said = capsys.readouterr().err
    assert "data.task=parity, list_recall before: data.task_options={" in said
    assert "n_lists" in said


def test_another_class_drops_the_arguments_of_the_old_one(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    logger = "trainer: {logger: {class_path: tests.cli.foreign.Tagged, init_args: {name: x, tags: {a: 1}}}}"
    csv = "trainer: {logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: logs}}}"
    assert "tags" not in parse(logger, csv)["trainer"]["logger"]["init_args"]
    assert "trainer.logger=lightning.pytorch.loggers.CSVLogger, tests.cli.foreign.Tagged before" in (
        capsys.readouterr().err
    )


def test_what_is_no_mapping_is_still_refused(parse: Parse) -> None:
    with pytest.raises(UserError, match=r"model\.position_options"):
        parse(FIRST[0], "--model.position_options=3")
