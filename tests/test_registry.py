"""A class from outside works wherever a name of this package does; what is no such class is refused in a line."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.registry import Registry, is_foreign


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
