"""The script completes in a real shell what the parsers know."""

import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from lightning_metatok.cli import VERBS, main
from lightning_metatok.cli.completion import everything
from lightning_metatok.model.attention.patterns import AXIS
from tests.cli.option_surface import FILE

ASK = """
source "$1"; shift
words=("$@")
COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1)); COMPREPLY=()
_shtab_lightning_metatok
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "lightning-metatok"
    path.write_text(shtab.complete(everything(), "bash"))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sh"], {"show"}),
        (["fit", "--model.patt"], {"--model.pattern", "--model.pattern_options"}),
        (["fit", "--model.pattern", "win"], {name for name in AXIS.known if name.startswith("win")}),
        (["validate", "--model.optimizer.schedule", "w"], {"wsd"}),
        (["fit", "--data.task", "list"], {"list_recall"}),
        (["sweep", "pl"], {"plan"}),
        (["show", "--chan"], {"--changed"}),
        (["fit", "--config", "pyproj"], {"pyproject.toml"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_shell_completes(words: list[str], expected: set[str], script: Path, repository: Path) -> None:
    command = ["bash", "-c", ASK, "ask", str(script), "lightning-metatok", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository)
    assert set(done.stdout.split()) == expected


def test_every_verb_and_every_option_of_fit_is_there(script: Path) -> None:
    text = script.read_text()
    options = {line.partition(":")[0] for line in FILE.read_text().splitlines() if line and not line.startswith("#")}
    (fit,) = (line for line in text.splitlines() if line.startswith("_shtab_lightning_metatok_fit_option_strings="))
    assert {f"--{key}" for key in options} <= set(fit.partition("(")[2].rstrip(")").split())
    for verb in VERBS:
        assert f"_shtab_lightning_metatok_{verb}_option_strings=" in text


def test_a_shell_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "completion bsh: expected one of bash, zsh, tcsh; did you mean 'bash'?" in capsys.readouterr().err
