"""The project's own files agree with each other: pins, extras, Makefile targets, rules on imports."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import lightning_metatok


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, Version]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(pin) for name, pin in pairs}


def requirements(project: dict) -> list[Requirement]:
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in project["dependencies"] + extras]


def test_every_requirement_is_pinned_to_a_version_that_it_allows(project: dict, pins: dict[str, Version]) -> None:
    for requirement in requirements(project):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


def test_pins_name_public_versions_that_any_index_can_serve(pins: dict[str, Version]) -> None:
    assert not [name for name, pin in pins.items() if pin.local]


def test_this_environment_has_the_pinned_versions(pins: dict[str, Version]) -> None:
    differing = {}
    for name, pin in pins.items():
        try:
            installed = Version(version(name))
        except PackageNotFoundError:  # the docs extra is not needed for tests
            continue
        if installed.public != pin.public:
            differing[name] = (str(installed), str(pin))
    assert not differing


def test_the_malicious_releases_of_lightning_stay_excluded(project: dict) -> None:
    lightning = next(each for each in requirements(project) if each.name == "lightning")
    assert not any(lightning.specifier.contains(bad) for bad in ("2.6.2", "2.6.3"))


def test_the_first_version_of_the_changelog_is_the_packages(repository: Path) -> None:
    headings = re.findall(r"^## \[(.+?)\]", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == lightning_metatok.__version__


def test_make_help_explains_every_target(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", repository], capture_output=True, text=True, check=True
    )
    explained = re.findall(r"^  make ([\w-]+) +\S", done.stdout, re.MULTILINE)
    assert explained == phony[1].split()


def test_make_refuses_an_old_python_in_one_line(repository: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", repository, "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Python 3.9.2; Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import lightning_metatok; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'lightning_metatok'}"


@pytest.mark.parametrize("path", ["Makefile", "pyproject.toml", "constraints.txt", ".ci/run", "CONTRIBUTING.md"])
def test_files_that_install_name_no_package_host(repository: Path, path: str) -> None:
    assert not re.search(r"https?://|file://|find-links|/home/|/root/|/tmp/", (repository / path).read_text())


@pytest.mark.slow
def test_every_benchmark_can_be_imported(repository: Path) -> None:
    modules = [f"benchmarks.{path.stem}" for path in sorted((repository / "benchmarks").glob("[a-z]*.py"))]
    assert modules
    code = f"import importlib; [importlib.import_module(name) for name in {modules}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CASES = """
import pytest

@pytest.mark.one_in(3)
@pytest.mark.parametrize("i", range(7))
def test_many(i): pass

def test_one(): pass
"""


def test_of_many_cases_one_in_n_is_quick_and_none_is_lost(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems\n")
    found = {}
    for mark in ("slow", "not slow"):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", mark, str(tmp_path)]
        options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(repository)}}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
        found[mark] = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    assert found["not slow"] == ["test_many[0]", "test_many[3]", "test_many[6]", "test_one"]
    assert found["slow"] == [f"test_many[{i}]" for i in (1, 2, 4, 5)]
