"""The door is light, names every verb, and turns a user's mistake into one line and exit code 2."""

import re
import subprocess
import sys

import pytest

from lightning_metatok.cli import VERBS, main
from lightning_metatok.cli.short_help import ALL
from lightning_metatok.cli.short_help import VERBS as WITH_SHORT_HELP


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


HEAVY = ("torch", "lightning", "datasets", "xformers", "matplotlib", "jsonargparse", "scipy", "pandas", "tensorboard")
SECONDS = 0.5
ASKED = [[], *([verb] for verb in VERBS if verb != "sweep")]
"""What is asked for help."""


@pytest.mark.one_in(3)
@pytest.mark.parametrize("words", ASKED, ids=lambda words: " ".join(words) or "no verb")
def test_help_imports_nothing_heavy_and_takes_at_most_half_a_cpu_second(words: list[str]) -> None:
    script = (
        "import contextlib, sys, resource\n"
        "from lightning_metatok.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"  # as argparse ends
        f"    assert main([*{words}, '--help']) == 0\n"
        f"heavy = {{*{HEAVY}}} & set(sys.modules)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('HEAVY', sorted(heavy), 'CPU', used.ru_utime + used.ru_stime)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: lightning-metatok")
    last = done.stdout.splitlines()[-1]
    assert last.startswith("HEAVY [] CPU ")
    assert float(last.split()[-1]) <= SECONDS


def test_short_help_names_options_that_there_are_and_long_help_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["probe", "--help", "all"])
    assert ended.value.code == 0
    every = capsys.readouterr().out
    assert "--probe.patching." in every
    assert "--model.n_layers" in every
    for verb in WITH_SHORT_HELP:
        assert main([verb, "--ckpt_path=x", "-h"]) == 0
        text = capsys.readouterr().out
        assert len(text.splitlines()) <= 40, "one screen"
        assert max(map(len, text.splitlines())) <= 120
        for line in text.partition("options:")[2].splitlines()[1:]:
            option = re.match(r"  (--[a-z_.]+)", line)
            assert option is not None
            of_a_task = option[1] == "--data.task"  # an option of both kinds of data, in the parser of text, too
            assert option[1] == "--probe." or line.startswith(f"  {ALL} ") or f"{option[1]} " in every or of_a_task


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean 'fit'?" in error


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prompt", "x"], "--ckpt_path"),
        (["--ckpt_path", "nowhere.ckpt", "--prompt", "x"], "nowhere.ckpt: no such file"),
        (
            ["--ckpt_path", "x", "--prompt", "x", "--temperature", "-1"],
            "--temperature=-1.0: expected 0 or more",
        ),
        (["--ckpt_path", "x", "--prompt", "x", "--top_p", "1.5"], "--top_p=1.5: expected a number in (0, 1]"),
        (
            ["--ckpt_path", "x", "--prompt", "x", "--topk", "3"],
            "unknown option '--topk'; did you mean '--top_k'?",
        ),
    ],
)
def test_generate_refuses_in_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
