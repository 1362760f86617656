"""A class from outside works wherever a name of this package does; what is no such class is refused in a line."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.registry import REGISTRIES, Registry, foreign_names, is_foreign


class Base:
    pass


class Own(Base):
    pass


@pytest.fixture
def registry() -> Registry[Base]:
    return Registry("model.thing", Base, {"own": Own}, group="things")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, which is not on the path of imports."""
    name = f"lab_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from tests.test_registry import Base\nclass Mine(Base):\n    pass\nclass Other:\n    pass\nmine = 3\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('no GPU\\nat all')\n")
    (tmp_path / f"{name}_leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    return name


def test_own_names_and_dotted_paths_resolve(registry: Registry[Base], lab: str) -> None:
    assert registry.resolve("own") is Own
    found = registry.resolve(f"{lab}.Mine")
    assert issubclass(found, Base)
    assert registry.resolve(registry.name_of(found)) is found
    assert registry.name_of(Own) == "own"
    assert str(Path.cwd()) not in sys.path  # only for the import


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onw", "model.thing='onw': expected one of own; did you mean 'own'?"),
        ("no_such_lab.Mine", "no_such_lab cannot be imported: ModuleNotFoundError: No module named 'no_such_lab'"),
        ("LAB.Mein", "has no Mein; did you mean 'Mine'?"),
        ("LAB.Other", "expected a class that derives from tests.test_registry.Base; it is the class Other"),
        ("LAB.mine", "it is of type int"),
        ("LAB_broken.Mine", "cannot be imported: RuntimeError: no GPU"),
        (".Mine", "cannot be imported: ValueError"),
        ("LAB_leaving.Mine", "cannot be imported: SystemExit: 3"),
    ],
)
def test_what_is_no_such_class_is_refused_in_one_line(
    registry: Registry[Base], lab: str, name: str, message: str
) -> None:
    with pytest.raises(UserError) as refused:
        registry.resolve(name.replace("LAB", lab))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("model.thing=")


def test_entry_points_of_installed_packages_have_names(monkeypatch: pytest.MonkeyPatch, lab: str) -> None:
    points = {
        "lightning_metatok.things": [
            EntryPoint("theirs", "tests.test_registry:Own", "lightning_metatok.things"),
            EntryPoint("gone", "no_such_lab:Mine", "lightning_metatok.things"),
        ]
    }
    monkeypatch.setattr("lightning_metatok.registry.entry_points", lambda group: points[group])
    registry = Registry("model.thing", Base, {"own": Own}, group="things")
    assert list(registry) == ["own", "theirs", "gone"]
    assert len(registry) == 3
    assert registry.resolve("theirs") is registry["theirs"] is Own
    with pytest.raises(UserError, match="entry point no_such_lab:Mine cannot be imported"):
        registry.resolve("gone")


def test_foreign_code_is_told_from_this_packages() -> None:
    assert is_foreign("my_lab.cope.CoPE")
    assert not is_foreign("rotary")
    assert not is_foreign("lightning_metatok.model.positions.rotary.RotaryPositions")


KEYS = {
    *("model.position", "model.pattern", "model.mechanism"),
    *("data.task", "data.meta_placement", "data.corpus", "ablation.readings", "probes"),
}


def test_every_key_that_takes_a_name_has_a_registry() -> None:
    import lightning_metatok.probes  # noqa: F401  (the uppermost room, which imports the others)

    assert REGISTRIES.keys() >= KEYS
    for key in KEYS:
        assert list(foreign_names(key, "my_lab.cope.CoPE")) == ["my_lab.cope.CoPE"], key
        assert list(foreign_names(key, ["my_lab.a.A", *REGISTRIES[key].own, "my_lab.b.B"])) == [
            "my_lab.a.A",
            "my_lab.b.B",
        ]
        for own in REGISTRIES[key].own.values():
            assert list(foreign_names(key, f"{own.__module__}.{own.__qualname__}")) == []
    assert list(foreign_names("data.text_field", "my_lab.cope.CoPE")) == []


def test_names_below_other_options_and_files_are_told_apart() -> None:
    import lightning_metatok.probes  # noqa: F401

    phases = [{"task": "my_lab.echo.Echo", "options": {"n": 3}}, {"task": "copying"}, {}]
    assert list(foreign_names("data.curriculum", phases)) == ["my_lab.echo.Echo"]
    for corpus in (
        "stories.jsonl",
        "notes.md",
        "folder/x.parquet",
        "./my_lab.Text",
        "/tmp/x.y",
        "allenai/c4",
        "python-stdlib",
    ):
        assert list(foreign_names("data.corpus", corpus)) == [], corpus


def test_what_is_added_to_the_table_is_found(lab: str) -> None:
    classes: dict[str, type[Base]] = {"own": Own}
    registry = Registry("model.thing", Base, classes, group="things")
    classes["later"] = Base
    assert registry.resolve("later") is Base
    assert list(registry) == list(registry.own) == ["own", "later"]
    for name in (None, 3, ["own"]):
        with pytest.raises(UserError, match="expected one of own, later"):
            registry.resolve(name)  # type: ignore[arg-type]
