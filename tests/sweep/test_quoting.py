"""Every value of a batch script reaches the program that reads it: sbatch's own splitting, a real bash and sh."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_metatok.errors import UserError
from lightning_metatok.sweep.folder import SweepFolder
from lightning_metatok.sweep.quoting import for_sbatch, sbatch_options, split_for_sbatch
from lightning_metatok.sweep.slurm import after_command, script
from lightning_metatok.sweep.spec import Resources

NAMES = [
    *("plain", "two words", " blanks at the ends ", "it's", 'say "x"', "hash#x", "# hash", "dollar$HOME", "tick`id`"),
    *("$(id)", "per%cent", "%A_%j", "100%", "!x", "a;b", "a&b", "a|b", "(a)", "{a,b}", "*", "~", "-rf", "hetjob"),
    *("PackJob's", "ünï 漢", "=x", "a<b>c", "x'\"'y", "$'a'", "[x]"),
]
nasty = st.text(st.sampled_from("ab '\"#$`%!;&|(){}*?~<>=-[]^ü/"), min_size=1, max_size=12).filter(
    lambda name: "/" not in name and name.strip(".") != ""
)


def sbatch_words(line: str) -> list[str]:
    """What sbatch makes of a line behind #SBATCH, told anew from `_get_argument` of its src/sbatch/opt.c."""
    for taken in ("packjob", "hetjob"):
        place = line.lower().find(taken)
        line = line if place < 0 else line[:place] + " " * len(taken) + line[place + len(taken) :]
    words, at = [], 0
    while True:
        while at < len(line) and line[at].isspace():
            at += 1
        if at < len(line) and line[at] == ":":
            raise ValueError("unexpected :")
        word, escaped, quote, begun = "", False, "", False
        while at < len(line) and (quote or not line[at].isspace()):
            c = line[at]
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
                at += 1
                continue
            elif quote:
                if c == quote:
                    quote = ""
                    at += 1
                    continue
            elif c in "\"'":
                quote = c
                at += 1
                continue
            elif c == "#":
                break
            word, begun, at = word + c, True, at + 1
        if quote:
            raise ValueError("unmatched quote")
        if not begun:
            return words
        words.append(word)


def as_slurm_names(pattern: str) -> str:
    """The path that SLURM makes of a pattern whose fields are %A, %a and %j."""
    assert "\\" not in pattern
    out, at = "", 0
    while at < len(pattern):
        if pattern[at] == "%":
            at += 1
            out += {"%": "%", "A": "7", "a": "3", "j": "7"}[pattern[at]]
        else:
            out += pattern[at]
        at += 1
    return out


def fake(place: Path, name: str) -> None:
    """A command that prints its arguments, and what it finds in the environment."""
    file = place / name
    file.write_text('#!/bin/bash\nprintf "%s\\0" "$PYTHONPATH" "$SRUN_CPUS_PER_TASK" "$OMP_NUM_THREADS" "$@"\n')
    file.chmod(0o755)


def run_script(text: str, place: Path, shell: str = "bash", **more: str) -> list[str]:
    """What `srun` was called with, by a real shell."""
    file = place / "script.sh"
    file.write_text(text)
    environment = {"PATH": f"{place}:/usr/bin:/bin", "HOME": "/home/user", "SLURM_ARRAY_TASK_ID": "1", **more}
    done = subprocess.run([shell, file], capture_output=True, env=environment, check=False, cwd=place)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split("\0")[:-1]


def check_folder(place: Path, name: str) -> None:
    """The script of a sweep in a folder of that name says to sbatch and to bash what is meant."""
    fake(place, "srun")
    folder = place / name
    folder.mkdir(exist_ok=True)
    names_file = folder / "1.names"
    names_file.write_text("run-zero\nrun-one\n")
    resources = Resources(partition=name, memory=name, cpus_per_task=3, concurrency=2)
    text = script(SweepFolder(folder), resources, names_file, 2, folder / "code")
    lines = [line[7:] for line in text.splitlines() if line.startswith("#SBATCH")]
    words = [word for line in lines for word in sbatch_words(line)]
    assert words == [word for line in lines for word in shlex.split(line, comments=True)]
    found = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert all(word.startswith("--") for word in words)
    assert found["partition"] == found["mem"] == name
    assert found["job-name"] == f"metatok-{name}"
    assert found["array"] == "0-1%2"
    assert as_slurm_names(found["output"]) == f"{folder}/logs/slurm-7_3.log"
    path, cpus, threads, *arguments = run_script(text, place)
    assert path.split(":")[0] == str(folder / "code")
    assert (cpus, threads) == ("3", "3")
    assert arguments[-4:] == ["sweep", "exec", str(folder), "run-one"]
    assert run_script(text, place, SLURM_CPUS_PER_TASK="5")[1] == "5"


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_partition_and_memory_of_any_name_arrive(tmp_path: Path, name: str) -> None:
    check_folder(tmp_path.resolve(), name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nasty)
def test_a_folder_of_made_up_names_arrives(tmp_path: Path, name: str) -> None:
    check_folder(tmp_path.resolve(), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_collect_job_gets_its_folder_file_and_partition(tmp_path: Path, name: str) -> None:
    place = tmp_path.resolve()
    fake(place, "collector")
    folder = SweepFolder(place / name)
    arguments = ["sweep", "collect", f"{place}/{name}.yaml", f"--folder={folder.path}"]
    command = after_command(folder, "12", folder.path / "code", arguments, name)
    options = dict(word.removeprefix("--").partition("=")[::2] for word in command[1:])
    assert options["partition"] == name
    assert options["dependency"] == "afterany:12"
    assert as_slurm_names(options["output"]) == f"{folder.path}/logs/slurm-collect-7.log"
    # sbatch puts --wrap into a script of sh as it is.
    words = shlex.split(options["wrap"])
    python = words[[word.endswith("python3") or "/python" in word for word in words].index(True)]
    text = options["wrap"].replace(shlex.quote(python), "collector", 1)
    path, _, threads, *given_ = run_script(f"#!/bin/sh\n{text}\n", place, "sh")
    assert (path.split(":")[0], threads) == (f"{folder.path}/code", "1")
    assert given_ == ["-P", "-m", "lightning_metatok", *arguments]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": "a\nb"}, "resources.partition='a"),
        ({"memory": "4G\n#SBATCH --x"}, "resources.memory"),
        ({"sbatch": ["--comment=a\n--exclusive"]}, r"resources.sbatch\[0\]"),
        (
            {"sbatch": ["--exclusive", "--comment=two words"]},
            r"sbatch\[1\]=--comment=two words: 'words' is no option",
        ),
        ({"sbatch": ["--comment=it's"]}, "expected ' once more"),
        ({"sbatch": ['--comment="x']}, 'expected " once more'),
        ({"sbatch": ["--comment=a#b"]}, "# begins a comment; expected quotes"),
        ({"sbatch": ["--comment=a\\"]}, "backslash holds no blank"),
        ({"sbatch": ["--comment=two\\ words"]}, "backslash holds no blank"),
        ({"sbatch": ["exclusive"]}, "'exclusive' is no option"),
        ({"sbatch": [""]}, "expected options such as --exclusive"),
        ({"sbatch": ["# nothing"]}, "expected options such as --exclusive"),
        ({"sbatch": ['--comment ""']}, "stops at an empty word"),
        ({"sbatch": ["hetjob"]}, "'hetjob' is no option"),
    ],
)
def test_what_cannot_be_quoted_is_refused_in_a_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        script(SweepFolder(tmp_path), Resources(**change), tmp_path / "n", 1, tmp_path / "code")  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x7fb", "a\\b", "a:b", "a\u2028b", "a\x85b", "a\udcffb"])
def test_a_folder_that_no_script_can_name_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    folder = SweepFolder(tmp_path / name)
    with pytest.raises(UserError, match="folder=") as error:
        script(folder, Resources(), folder.path / "n", 1, folder.path / "code")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match="folder="):
        after_command(folder, "1", folder.path / "code", [], None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--exclusive", ["--exclusive"]),
        ("#SBATCH --exclusive", ["--exclusive"]),
        ("-p main --comment='two words'  # why", ["-p", "main", "--comment=two words"]),
        ('--comment="a \\"b\\" # $x `y`"', ['--comment=a "b" # $x `y`']),
        ("--partition main", ["--partition", "main"]),
    ],
)
def test_lines_for_sbatch_are_taken_as_sbatch_reads_them(line: str, words: list[str]) -> None:
    assert sbatch_options(line, "x") == words
    assert sbatch_words(" ".join(for_sbatch(word, "x") for word in words)) == words


@given(st.text(st.sampled_from("ab '\"#\\=:-hetjob"), min_size=1, max_size=12))
def test_words_are_quoted_for_sbatch_and_for_shells_alike(word: str) -> None:
    line = f"--x={word} {word}"
    quoted = " ".join(for_sbatch(part, "x") for part in (f"--x={word}", word))
    assert sbatch_words(quoted) == shlex.split(quoted, comments=True) == [f"--x={word}", word]
    try:
        read = split_for_sbatch(line, "x")
    except UserError:
        return
    if "" not in read and "hetjob" not in line and ":" not in line:
        assert sbatch_words(line) == read


def test_requeue_and_the_lines_of_a_user_stand_in_the_script(tmp_path: Path) -> None:
    def lines(**resources: object) -> list[str]:
        given_ = Resources(**resources)  # type: ignore[arg-type]
        return script(SweepFolder(tmp_path), given_, tmp_path / "n", 4, tmp_path / "code").splitlines()

    plain = lines()
    assert "#SBATCH --requeue" in plain
    assert "#SBATCH --no-requeue" not in plain
    assert "#SBATCH --no-requeue" in lines(requeue=False)
    assert "#SBATCH --requeue" not in lines(requeue=False)
    assert not [line for line in plain if "partition" in line or "--mem" in line or "gpus" in line or "%" in line[:20]]
    more = lines(sbatch=["--exclusive", "#SBATCH --qos=low"], gpus_per_node=2, partition="main", nodes=2, memory="4G")
    for line in ("--exclusive", "--qos=low", "--gpus-per-node=2", "--partition=main", "--nodes=2", "--mem=4G"):
        assert f"#SBATCH {line}" in more
    assert "#SBATCH --array=0-3%2" in lines(concurrency=2)
    for line in ("--signal=USR1@120", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=60", "--open-mode=append"):
        assert f"#SBATCH {line}" in plain
