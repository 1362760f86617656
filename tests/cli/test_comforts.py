"""`init`, `ls`, `diff` and `show`."""

import json
import os
import re
from pathlib import Path

import pytest

from lightning_metatok.cli import main
from lightning_metatok.cli.ls import run_folders, span
from tests.written_runs import write_run

ROOT = Path(__file__).resolve().parents[2]


def test_init_copies_every_file_and_overwrites_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    for name in ("conf", "sweeps"):
        for path in (ROOT / name).rglob("*.yaml"):
            assert (tmp_path / "new" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert "fit --config conf/debug.yaml" in capsys.readouterr().out
    assert main(["init", str(tmp_path / "new")]) == 2
    assert "holds conf/ and sweeps/ already" in capsys.readouterr().err


def test_ls_lists_runs_newest_first_and_what_is_known_of_a_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "old", "pause", seed=7, values=[0.5, 0.6])
    write_run(tmp_path / "deep" / "new", "meta", seed=8, values=[0.5])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("- no mapping")
    for name in ("config.yaml", "metrics.jsonl"):
        os.utime(tmp_path / "old" / name, (1e9, 1e9))
    assert {path.name for path in run_folders(tmp_path)} == {"old", "new", "broken"}
    assert main(["ls", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["run", "arm", "seed", "step", "loss", "age"]
    found = {row[0]: row[1:] for row in rows[1:]}
    assert found["old"][:5] == ["pause", "7", "20", "1.0000", "val"]
    assert found["deep/new"][:5] == ["meta", "8", "10", "1.0000", "val"]
    assert rows[-1][0] == "old"
    assert found["broken"][-1] in ("s", "min")
    assert main(["ls", str(tmp_path / "nowhere")]) == 2


def test_ls_reads_more_than_the_end_where_the_loss_stands_further_up(tmp_path: Path) -> None:
    from lightning_metatok.cli.ls import TAIL, last_values

    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 1, "loss/val": 2.5}, *({"step": step, "lr": 0.1} for step in range(2, TAIL // 20))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert path.stat().st_size > TAIL
    assert last_values(path)["loss/val"] == 2.5


def test_ages_are_read_at_a_glance() -> None:
    assert [span(seconds) for seconds in (3, 90, 7200, 3 * 86400)] == ["3 s", "2 min", "2 h", "3 d"]


def test_diff_names_keys_and_metrics_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(tmp_path / "a", "meta", seed=1, values=[0.5, 0.75])
    second = write_run(tmp_path / "b", "pause", seed=1, values=[0.5, 0.5], config={"model.d_ff": 64})
    assert main(["diff", str(first), str(second)]) == 0
    rows = {row[0]: row[1:] for line in capsys.readouterr().out.splitlines() if (row := line.split())}
    assert rows["model.d_ff"] == ["null", "64"]
    assert rows["model.mechanism"] == ["meta", "none"]
    assert rows["accuracy/exact/val"] == ["0.75", "0.5", "-0.25"]
    assert "seed_everything" not in rows
    assert main(["diff", str(first), str(second), "--all"]) == 0
    assert "seed_everything" in capsys.readouterr().out
    assert main(["diff", str(first), str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, list[str]]:
    """The rows of `show`: key -> value, type, default, source."""
    assert main(["show", *map(str, arguments)]) == 0
    return {
        row[0]: row[1:] for line in capsys.readouterr().out.splitlines() if (row := re.split(r" {2,}", line.rstrip()))
    }


def test_show_says_what_a_configuration_comes_to_and_who_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    conf = ROOT / "conf"
    own = tmp_path / "own.yaml"
    own.write_text("model: {mechanism_options: {layers: [1]}}\nrun_dir: ${oc.env:SECRET}\n")
    files = (f"--config={conf / 'base.yaml'}", f"--config={own}", "--trainer.max_steps=70", "--model.n_layers", "2")
    rows = shown(capsys, *files)
    base = str(conf / "base.yaml")
    assert rows["key"] == ["value", "type", "default", "from"]
    assert rows["trainer.max_steps"] == ["70", "int", "1000", "option"]
    assert rows["model.n_layers"] == ["2", "int", "null", "option"]
    assert rows["model.d_model"] == ["128", "int", "null", base]
    assert rows["model.optimizer.decay_steps"] == ["70", "int", "1000", f"{base} ${{trainer.max_steps}}"]
    assert rows["model.mechanism_options"][::3] == ['{"layers": [1]}', str(own)]
    assert rows["model.dropout"] == ["0.0", "float", "0.0", "default"]
    assert rows["run_dir"] == ['"${oc.env:SECRET}"', "str", '"runs/run"', str(own)]  # a secret stays one
    changed = shown(capsys, *files, "--changed", "--only", "model.optimizer", "model.n_")
    assert set(changed) == {"key", "model.n_layers", "model.n_heads", *(f"model.optimizer.{name}" for name in
                            ("lr", "min_lr", "warmup_steps", "decay_steps"))}  # fmt: skip
    seeded = shown(capsys, *files, "--seed.data=5", "--only", "data.seed")
    assert seeded["data.seed"][::3] == ["5", "option"]


def test_show_reads_the_configuration_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    config = tmp_path / "run" / "config.yaml"
    config.write_text((ROOT / "conf" / "debug.yaml").read_text())
    rows = shown(capsys, f"--ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}", "--only=model.d_model")
    assert rows["model.d_model"] == ["32", "int", "null", str(config)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only=modle"], "--only=modle: expected the beginning of a key; did you mean 'model'?"),
        (["--model.n_layer=3"], "unknown option '--model.n_layer'; did you mean 'model.n_layers'?"),
        (["--trainer.max_steps=x"], "trainer.max_steps=x: expected"),
    ],
)
def test_show_says_what_is_wrong(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", f"--config={ROOT / 'conf' / 'debug.yaml'}", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
