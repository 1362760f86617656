"""Verbs that read what a run left: folders that are no runs, damaged files of runs, options that cannot work."""

import shutil
from pathlib import Path

import pytest

from tests.bad_input.conftest import Refused

VERBS = [
    ("fti", "fti: no such verb; did you mean 'fit'?"),
    ("--foo", "--foo: no such verb"),
    ("doctor --jsn", "unknown option '--jsn'; did you mean '--json'?"),
    ("doctor here", "unknown option 'here'"),
    ("doctor --json=3", "--json: ignored explicit argument '3'"),
    ("compare", "compare: expected run folders"),
    ("compare nowhere", "nowhere: no such folder"),
    (f"compare {'x' * 5000}", "xxx: no such folder"),
    ("compare a\0b", "no such folder"),
    ("compare {run}/checkpoints", "checkpoints: expected a run folder as `fit` writes it; config.yaml is missing"),
    ("compare {run}/config.yaml", "config.yaml: no such folder"),
    ("compare {run} --csv={run}", "--csv={run}: expected a file in a folder that exists"),
    ("compare {run} --csv=/dev/full", "--csv=/dev/full: cannot be written: No space left on device"),
    ("compare {run} --csv=/proc/x.csv", "--csv=/proc/x.csv: cannot be written"),
    (f"compare {{run}} --figure={'x' * 300}", "xxx: cannot be written: File name too long"),
    ("import --from=nobody/nothing --to={run}/x", "on a machine with a network: hf download nobody/nothing"),
    ("import --from={run} --to={run}/x", "expected a folder of a Hugging Face model; config.json is missing"),
    ("import --from=x --to={run}/x --mechanism_options={{}}", "expected --mechanism beside it"),
    ("import --from=x --to={run}/x --mechanism=meta --mechanism_options=3", "expected a mapping, such as"),
    ("export --ckpt_path={ckpt}", "the following arguments are required: --to"),
    ("export --ckpt_path={ckpt} --to={run}", "--to={run}: expected a folder that does not exist yet, or is empty"),
    ("export --ckpt_path={ckpt} --to={run}/x --shape=gpt", "--shape=gpt: expected one of auto, stock, own"),
    ("export --ckpt_path={ckpt} --to={run}/x --shape=stock", "--shape=stock: model.mechanism='meta' is in no model"),
    ("export --ckpt_path={run}/arm.json --to={run}/x", "arm.json: arm.json cannot be read"),
    ("generate", "the following arguments are required: --ckpt_path"),
    ("generate --ckpt_path=x", "one of the arguments --prompt --prompt_file is required"),
    ("generate --ckpt_path=x --prompt_file={run}", "--prompt_file={run}: cannot be read: Is a directory"),
    ("generate --ckpt_path=x --prompt_file={ckpt}", ": expected text in UTF-8, byte "),
    ("generate --ckpt_path={ckpt} --prompt=x --jsonl={run}", "--jsonl={run}: expected a file in a folder that exists"),
    ("generate --ckpt_path={run} --prompt=x", "--ckpt_path={run}: expected a file, this is a folder"),
    ("generate --ckpt_path={run}/arm.json --prompt=x", "arm.json: arm.json cannot be read"),
    ("generate --ckpt_path={ckpt} --prompt=x --memory=windows", "--memory='windows': expected one of auto,"),
    ("generate --ckpt_path={ckpt} --prompt=x --memory=window --memory_window=0", "_window=0: expected 1 or more"),
    ("generate --ckpt_path={ckpt} --prompt=x --memory_sinks=4", "--memory_sinks=4: memory='auto' has none"),
    ("generate --ckpt_path={ckpt} --prompt=\udcff", "--prompt='\\udcff': expected text in UTF-8"),
    *(
        (f"generate --ckpt_path={{ckpt}} --prompt=x --{option}", f"--{option}: expected {expected}")
        for option, expected in (
            ("temperature=nan", "0 or more"),
            ("temperature=inf", "0 or more"),
            ("top_k=0", "a positive number"),
            ("top_p=nan", "a number in (0, 1]"),
            ("top_p=1.5", "a number in (0, 1]"),
            ("min_p=nan", "a number in [0, 1]"),
            ("repetition_penalty=0.0", "a positive number"),
            ("max_new_tokens=0", "a positive number"),
            ("seed=-1", "a seed from 0"),
            ("seed=99999999999999999999", "a seed from 0"),
            ("meta_fraction=0.9", "a share between 0 and 0.5"),
            ("meta_fraction=nan", "a share between 0 and 0.5"),
            ("placement=fixed", "one of random, periodic, punctuation"),
        )
    ),
    ("generate --ckpt_path={ckpt} --prompt=x --stop=", "--stop=['']: expected a text that is not empty"),
    ("generate --ckpt_path={ckpt} --prompt=x --max_new_tokens=x", "--max_new_tokens: invalid int value: 'x'"),
    ("generate --ckpt_path={ckpt} --prompt=x --tempreature=1", "did you mean '--temperature'?"),
    ("generate --ckpt_path={ckpt} --prompt=x stray", "unknown option 'stray'"),
]
VERBS += [
    (f"{verb}{option}", expected)
    for verb in ("validate", "test", "predict")
    for option, expected in (
        ("", f"--ckpt_path: expected a checkpoint to {verb}"),
        (" --ckpt_path={run}", "--ckpt_path={run}: no such file"),
        (" --ckpt_path=nowhere.ckpt", "--ckpt_path=nowhere.ckpt: no such file"),
        (" --ckpt_path={run}/arm.json", "arm.json: expected --config, as no config.yaml stands beside its folder"),
        (" --config={debug} --ckpt_path=auto --run_dir={run}/no", f"--ckpt_path: expected a checkpoint to {verb}"),
    )
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("command", "expected"), VERBS)
def test_a_command_that_cannot_work_is_refused(
    command: str, expected: str, fitted: Path, checkpoint: Path, repository: Path, refused: Refused
) -> None:
    places = {"run": fitted, "ckpt": checkpoint, "debug": repository / "conf" / "debug.yaml"}
    before = sorted(fitted.rglob("*"))
    assert expected.format(**places) in refused(*(word.format(**places) for word in command.split(" ")))
    assert sorted(fitted.rglob("*")) == before


LINE = '{"step": 1, "loss/val": %s, "budget/source_tokens": 1, "budget/flops": 1}\n'
FILES = {
    "metrics.jsonl": [
        (b"", "no run logged it"),
        (b"\xff\xfe", "metrics.jsonl: byte 0 is not UTF-8"),
        (b"[]\n", "metrics.jsonl line 1: expected a JSON object"),
        (b"[" * 100_000, "metrics.jsonl line 1: expected a JSON object"),
        ((LINE % 3 + LINE % '"x"').encode(), "metrics.jsonl line 2: loss/val=x: expected a number"),
        (b'{"step": "a"}\n', "metrics.jsonl line 1: step=a: expected a number"),
        (b'{"step": 1, "loss/val": 3}\n', "metrics.jsonl does not say budget/source_tokens at step 1"),
    ],
    "config.yaml": [
        (b"\xff\xfe\0", "config.yaml: byte 0 is not UTF-8"),
        (b"- a\n", "config.yaml: expected a configuration, this is no YAML mapping"),
        (b"[" * 5000, "config.yaml: expected a configuration, this is no YAML mapping"),
        (b"a: &a {b: *a}\n", "config.yaml: expected a configuration, this is no YAML mapping"),
    ],
    "arm.json": [
        (b"\xff", "arm.json: byte 0 is not UTF-8"),
        (b"[]", "arm.json: expected a JSON object"),
        (b"{}", "arm.json: expected 'arm' in it"),
        (b'{"arm": "a", "differs": 3, "parameters": 3}', "arm.json: differs=3: expected 'differs' in it"),
        (b'{"arm": "a", "differs": {}, "parameters": 3}', "arm.json: differs={}: expected 'placement' in it"),
    ],
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_run_is_named(name: str, fitted: Path, refused: Refused, tmp_path: Path) -> None:
    shutil.copytree(fitted, tmp_path / "damaged", ignore=shutil.ignore_patterns("checkpoints"))
    for content, expected in FILES[name]:
        (tmp_path / "damaged" / name).write_bytes(content)
        assert expected in refused("compare", tmp_path / "damaged")
