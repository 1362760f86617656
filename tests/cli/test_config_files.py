"""Unknown keys are named with their file and the nearest right key."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_metatok.cli.config_files import check_config_files, explain, known_keys
from lightning_metatok.errors import UserError


@pytest.fixture
def known() -> list[str]:
    parser = ArgumentParser(exit_on_error=False)
    for key in ("model.d_model", "model.optimizer.lr", "trainer.callbacks", "run_dir"):
        parser.add_argument(f"--{key}")
    return known_keys(parser)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {d_modle: 3}", "unknown key 'model.d_modle'; did you mean 'model.d_model'?"),
        ("modle: {d_model: 3}", "unknown key 'modle.d_model'; did you mean 'model.d_model'?"),
        ("model: {optimizer: {lrr: 1}}", "did you mean 'model.optimizer.lr'?"),
        ("zzz: 1", "unknown key 'zzz'"),
        ("model: [", "not YAML"),
        ("just text", "expected keys and values, got str"),
    ],
)
def test_a_mistake_in_a_file_is_named(text: str, expected: str, known: list[str], tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        check_config_files([str(path)], known)
    assert expected in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_right_keys_pass_and_values_of_options_are_not_keys(known: list[str], tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("model: {d_model: 3, optimizer: {lr: 1}}\ntrainer: {callbacks: {class_path: x}}\nrun_dir: a")
    check_config_files([str(path)], known)


def test_a_missing_file_names_the_nearest(known: list[str], tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("run_dir: a")
    with pytest.raises(UserError, match=r"no such file; did you mean '.*base\.yaml'"):
        check_config_files([str(tmp_path / "bas.yaml")], known)


def test_a_file_of_another_encoding_is_refused(known: list[str], tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_bytes(b"run_dir: \xff")
    with pytest.raises(UserError, match="not UTF-8"):
        check_config_files([str(path)], known)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "unrecognized arguments: --model.d_modle=3",
            "unknown option '--model.d_modle'; did you mean 'model.d_model'?",
        ),
        (
            "Parser key \"model.d_model\":\n  Expected a <class 'int'>. Got value: abc",
            "model.d_model=abc: expected int",
        ),
        (
            "Parser key \"model.act\":\n  Expected a typing.Literal['a', 'b']. Got value: c",
            "model.act=c: expected one of ['a', 'b']",
        ),
    ],
)
def test_parser_messages_become_one_line(message: str, line: str, known: list[str]) -> None:
    assert explain(message, known) == line
