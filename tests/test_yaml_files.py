"""One reader for all YAML: what a number is, and that the reader in C keeps what the strict checks promise."""

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_metatok.errors import UserError
from lightning_metatok.yaml_files import Reader, as_text, followed, in_one_line, read_text, value_of

VALUES = [
    ("1e-3", 0.001),
    ("1e3", 1000.0),
    ("1E+3", 1000.0),
    ("-3e-4", -0.0003),
    ("1.e-3", 0.001),
    (".5", 0.5),
    (".5e3", 500.0),
    ("5.0", 5.0),
    ("1_000", 1000),
    ("1_000.5", 1000.5),
    (".inf", float("inf")),
    ("-.inf", float("-inf")),
    ("12", 12),
    ("0x10", 16),
    ("true", True),
    ("null", None),
    ("~", None),
    ("'1e-3'", "1e-3"),
    ("e3", "e3"),
    ("1e", "1e"),
    (".", "."),
    ("._", "._"),
    ("1.2.3", "1.2.3"),
    ("2026-11-26", "2026-11-26"),
    ("1e-3x", "1e-3x"),
    ("inf", "inf"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_value_is_the_same_in_every_file_and_on_the_command_line(text: str, value: object) -> None:
    for read in (read_text(f"a: {text}", "f")["a"], value_of(text)):
        assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_options_without_a_type_are_read_alike(text: str, value: object) -> None:
    from lightning_metatok.cli import training_parser  # noqa: F401  (it hands the reader to jsonargparse)

    parser = ArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
    parser.add_argument("--x", type=dict)
    read = parser.parse_args([f"--x={{a: {text}}}"]).x["a"]
    assert (read, type(read)) == (value, type(value))


def test_c_and_python_read_alike() -> None:
    text = "".join(f"k{i}: {value}\n" for i, (value, _) in enumerate(VALUES))
    text += "l: [1, {a: &x b}, *x]\nm: {<<: {a: 1}}\n"
    slow = type("Slow", (yaml.SafeLoader,), {})
    slow.yaml_implicit_resolvers, slow.yaml_constructors = Reader.yaml_implicit_resolvers, Reader.yaml_constructors
    assert read_text(text, "f") == yaml.load(text, Loader=slow)


def test_the_reader_is_the_one_in_c_where_there_is_one() -> None:
    assert issubclass(Reader, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.mark.parametrize("text", ["a: [" + "[" * 100_000, "{a: " * 100_000, "- " * 100_000], ids=["[", "{", "-"])
def test_depth_does_not_reach_the_stack(text: str) -> None:
    with pytest.raises(UserError, match="levels deep"):
        read_text(text, "f")


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_what_is_written_is_read_back(text: str, value: object) -> None:
    for content in ({"a": value}, {"a": text}, {"a": [text, {"b": value}]}):
        for written in (as_text(content), in_one_line(content)):
            assert read_text(written, "f") == content
    assert "\n" not in in_one_line({"a": ["x" * 200, "y y " * 50]})


def test_references_are_followed() -> None:
    content = {
        "a": {"b": "${c.d}", "e": "${.b}", "f": "${c}", "g": "x ${c.d}", "l": ["${c.d}"]},
        "c": {"d": 3, "n": None},
        "env": "${oc.env:HOME}",
        "of_env": "${env}",
        "nothing": "${c.n}",
        "missing": "${c.m}",
        "circle": "${back}",
        "back": "${circle}",
        "room": "${with_marks:${c.d}}",
        "room_of_text": "${with_marks:${env}}",
        "room_of_itself": "${with_marks:${room_of_itself}}",
    }
    assert followed(content) == {
        "a": {"b": 3, "e": 3, "f": {"d": 3, "n": None}, "g": "x ${c.d}", "l": ["${c.d}"]},
        "c": {"d": 3, "n": None},
        "env": "${oc.env:HOME}",
        "of_env": "${oc.env:HOME}",
        "nothing": None,
        "missing": "${c.m}",
        "circle": "${back}",
        "back": "${circle}",
        "room": 4,
        "room_of_text": "${with_marks:${env}}",
        "room_of_itself": "${with_marks:${room_of_itself}}",
    }
