"""The pages that show how something is added run as they are written, and print what they say they print."""

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.model import mechanisms, positions
from lightning_metatok.model.attention import patterns
from tests.system.helpers import run, succeed

PAGES = Path(__file__).parents[2] / "docs" / "extend"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["position", "pattern", "mechanism"])
def test_a_page_runs_and_prints_what_it_shows(page: str) -> None:
    registries: list[dict[str, Any]] = [positions.FAMILIES, mechanisms.MECHANISMS, patterns.PATTERNS]
    kept = [dict(registry) for registry in registries]
    printed, names = io.StringIO(), {"__name__": page}
    blocks = FENCED.findall((PAGES / f"{page}.md").read_text())
    assert [kind for kind, _ in blocks].count("python") >= 3
    try:
        with contextlib.redirect_stdout(printed):
            for kind, text in blocks:
                if kind == "python":
                    exec(compile(text, f"docs/extend/{page}.md", "exec"), names)
        added = [registry.keys() - content.keys() for registry, content in zip(registries, kept, strict=True)]
    finally:
        for registry, content in zip(registries, kept, strict=True):
            registry.clear()
            registry.update(content)
    assert sum(map(len, added)) == 1, "one line in one registry"
    assert printed.getvalue() == "".join(text for kind, text in blocks if not kind)


ALL = sorted(path.stem for path in PAGES.glob("*.md"))
FILE = re.compile(r"# (my_lab/\w+\.py)\n")


def test_there_is_a_page_for_each_kind() -> None:
    assert set(ALL) >= {"position", "pattern", "mechanism", "task", "probe"}


@pytest.mark.parametrize("page", ALL)
def test_the_commands_of_a_page_run_in_a_folder_that_holds_its_file_alone(
    page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = FENCED.findall((PAGES / f"{page}.md").read_text())
    files = [(name[1], text) for kind, text in blocks if kind == "python" and (name := FILE.match(text))]
    assert len(files) == 1
    for name, text in files:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "conf").symlink_to(repository / "conf")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        monkeypatch.delitem(sys.modules, name)
    commands = [line for kind, text in blocks if kind == "bash" for line in text.replace("\\\n", "").splitlines()]
    assert any(f"my_lab.{Path(files[0][0]).stem}." in command for command in commands)
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "lightning-metatok"
        if arguments[0] == "probe":  # what the user names is imported; what it writes is looked at
            succeed(*arguments)
            assert (tmp_path / "runs" / "asked" / "probe" / "sureness.csv").is_file()
            continue
        succeed(*arguments)
        if "--trust" in arguments:
            refused = run(*(argument for argument in arguments if argument != "--trust"))
            assert refused.code == 2
            assert "--trust allows it" in refused.err
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_the_page_of_a_probe_prints_what_it_shows() -> None:
    printed, names = io.StringIO(), {"__name__": "probe"}
    blocks = FENCED.findall((PAGES / "probe.md").read_text())
    with contextlib.redirect_stdout(printed):
        for kind, text in blocks:
            if kind == "python":
                exec(compile(text, "docs/extend/probe.md", "exec"), names)
    assert printed.getvalue() == "".join(text for kind, text in blocks if not kind)
