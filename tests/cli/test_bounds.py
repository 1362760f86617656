"""Every option that takes a number has bounds, those that are added tomorrow, too."""

import warnings
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from jsonargparse import ArgumentParser

from lightning_metatok.cli import memory
from lightning_metatok.cli.bounds import LARGEST, MOST
from lightning_metatok.cli.training import TrainingCLI
from lightning_metatok.cli.training_parser import quiet
from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig

MODEL = [f"--model.{key}" for key in ("n_layers=1", "n_heads=1", "d_model=8", "vocab_size=64")]
TEXT, TASK = "--data.corpus=x", "--data.task=list_recall"


def parsed(*argv: str) -> dict[str, Any]:
    """Parse a fit."""
    with warnings.catch_warnings():
        quiet()
        config: dict[str, Any] = Reader("fit", [*MODEL, *argv]).config.as_dict()
    return config


class Names(TrainingCLI):
    """Stops before it parses, and hands out the parser."""

    def parse_arguments(self, parser: ArgumentParser, args: Any) -> None:  # type: ignore[override]
        """Hand it out."""
        raise StopIteration(parser)


class Reader(TrainingCLI):
    """Parses, and does nothing else."""

    def before_instantiate_classes(self) -> None:
        """Nothing."""

    def instantiate_classes(self) -> None:
        """Nothing."""


def kinds(hint: Any) -> set[Any]:
    if get_origin(hint) is dict:
        return set()
    parts = get_args(hint)
    return {kind for part in parts for kind in kinds(part)} if parts else {hint}


def parser_of(first: str) -> ArgumentParser:
    with warnings.catch_warnings():
        quiet()
        try:
            Names("fit", [first])
        except StopIteration as names:
            parser: ArgumentParser = names.value
            return parser
    raise AssertionError("the parser was not asked")


def numbers() -> Iterator[tuple[str, str, bool, bool]]:
    """(kind of data, option, whether it takes a list only, whether it takes a fraction)."""
    seen: set[str] = set()
    for first in (TEXT, TASK):
        for action in parser_of(first)._actions:
            hint = getattr(action, "_typehint", None) or action.type
            takes_list = any(get_origin(part) is list for part in (hint, *get_args(hint)))
            if kinds(hint) & {int, float} and action.dest not in seen:
                seen.add(action.dest)
                yield first, action.dest, takes_list and int not in get_args(hint), float in kinds(hint)


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("first", "option", "takes_list", "takes_fraction"), list(numbers()))
def test_no_number_is_endless(first: str, option: str, takes_list: bool, takes_fraction: bool) -> None:
    values = ["1" + "0" * 39, *(["1e40", "-.inf", ".nan"] if takes_fraction else ["-1" + "0" * 39])]
    for value in values:
        with pytest.raises(UserError) as error:
            parsed(first, f"--{option}={f'[{value}]' if takes_list else value}")
        assert option in str(error.value)
        assert "expected" in str(error.value)


def test_most_names_options_that_there_are() -> None:
    assert MOST.keys() <= {option for _, option, _, _ in numbers()}
    assert LARGEST > 10**9


@pytest.mark.parametrize("value", ["{base: .nan}", "{base: 1.0e+300}", "{a: {b: [1, .inf]}}"])
def test_numbers_in_mappings_have_bounds_too(value: str) -> None:
    with pytest.raises(UserError, match=r"model\.position_options\.[\w.]+=.*: expected"):
        parsed(TEXT, f"--model.position_options={value}")


@pytest.mark.parametrize(
    "options",
    [{}, {"position": "learned"}, {"shared_layers": True}, {"position": "t5"}, {"tied_head": False, "norm": "post"}],
)
def test_parameters_are_counted_without_building_the_layers(options: dict[str, Any]) -> None:
    config = TransformerConfig(n_layers=5, n_heads=2, d_model=16, vocab_size=32, max_positions=64, **options)
    assert memory.n_parameters(config) == MetaTransformer(config).n_parameters()


def test_a_model_of_more_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parsed(TEXT, "--trainer.accelerator=cpu")
    known = {"n_layers", "n_heads", "d_model", "vocab_size", "max_positions"}
    n = memory.n_parameters(TransformerConfig(**{key: value for key, value in config["model"].items() if key in known}))
    monkeypatch.setattr(memory, "memory", lambda: 16 * n)
    memory.check_memory(config, trains=True)
    monkeypatch.setattr(memory, "memory", lambda: 16 * n - 1)
    memory.check_memory(config, trains=False)
    with pytest.raises(UserError, match=f"its {n:,} parameters take"):
        memory.check_memory(config, trains=True)
    memory.check_memory(parsed(TEXT, "--trainer.accelerator=cpu", "--model.optimizer.name=muon"), trains=True)


def test_the_memory_is_that_of_a_machine() -> None:
    assert 2**28 < memory.memory() < 2**50
