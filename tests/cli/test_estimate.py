"""`estimate`: reads a configuration as `fit` does, says what the run costs, and refuses in one line."""

import re
from pathlib import Path

import pytest

from tests.system.helpers import run, succeed

CONF = Path(__file__).resolve().parents[2] / "conf"
DEBUG, LARGE = CONF / "debug.yaml", CONF / "metatok_1b_c4.yaml"
BF16 = "--trainer.precision=bf16-mixed"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with an empty cache below: an estimate leaves both as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def rows(text: str, start: str) -> list[list[str]]:
    """Cells of the table rows that begin with `start`."""
    lines = [line for line in text.splitlines() if line.startswith(f"│ {start}")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_large_run_is_estimated_and_nothing_is_written(nowhere: Path) -> None:
    text = succeed("estimate", "--config", LARGE, "--gpus", "1", "8", "64")
    assert "metatok_1b_c4: 1,176,864,768 parameters" in text
    assert rows(text, "meta-attention") == [["meta-attention", "268,435,456", "22.8%"]]
    assert "a step: 512 blocks of 2,048, 1,048,576 tokens" in text
    memory, speed = rows(text, "fsdp2")[:3], rows(text, "fsdp2")[3:]
    # 4, 4 and 8 bytes a parameter, an eighth of them; 2 + 4 of the embedding, the last norm and two blocks.
    assert memory[1][:7] == ["fsdp2", "8", "8", "0.6", "0.6", "1.2", "1.4"]
    assert [row[1:3] for row in speed] == [["1", "8 x 64"], ["8", "8 x 8"], ["64", "8 x 1"]]
    # 40 % of 312 TFLOP/s over 6.017 GFLOP a token.
    assert speed[0][3] == "20,740"
    assert "40% of 312 TFLOP/s (dense, 16 bits) is an assumption" in text
    assert list(nowhere.iterdir()) == []


def test_options_of_fit_and_later_files_win(nowhere: Path) -> None:
    overlay = nowhere / "deeper.yaml"
    overlay.write_text("model: {n_layers: 3}\n", encoding="utf-8")
    text = succeed("estimate", "-c", DEBUG, f"--config={overlay}", BF16, "--model.meta_attention=false", "--gpus=1")
    d = int(re.search(r"d_model: (\d+)", DEBUG.read_text(encoding="utf-8"))[1])  # type: ignore[index]
    assert rows(text, "self-attention")[0][1] == f"{3 * 4 * d**2:,}"
    assert not rows(text, "meta-attention")


def test_what_was_measured_takes_the_place_of_the_assumption() -> None:
    text = succeed("estimate", "--config", LARGE, "--measured_tokens_per_s=10370", "--gpus", "1")
    assert rows(text, "ddp")[1][3:5] == ["10,370", "100%"]
    assert "10,370 tokens/s as given, 20% of 312 TFLOP/s" in text


def test_a_number_of_gpus_that_cannot_share_the_batch_is_shown_as_that() -> None:
    text = succeed("estimate", "--config", LARGE, "--gpus", "3", "8")
    assert ["ddp", "3", "no share"] in [row[:3] for row in rows(text, "ddp")]
    assert ["ddp", "3"] not in [row[:2] for row in rows(text, "ddp") if row[2].isdigit()], "no memory either"


def test_the_batch_of_a_step_is_said_or_taken_from_one_gpu() -> None:
    paper = CONF / "gpt2_small_c4.yaml"
    assert "a step: 120 blocks" in (text := succeed("estimate", "--config", paper, "--gpus", "1"))
    assert "trainer.devices=auto does not say how many blocks make a step" in text
    text = succeed("estimate", "--config", paper, "--gpus", "1", "--global_batch=480")
    assert "a step: 480 blocks of 1,024, 491,520 tokens" in text
    assert "trainer.devices=auto" not in text


def test_memory_is_that_of_the_optimiser() -> None:
    def moments(*options: str) -> tuple[float, str]:
        text = succeed("estimate", "--config", LARGE, "--gpus=1", *options)
        (said,) = re.findall(r"memory: (\S+ keeps \S+ bytes a parameter)", text)
        return float(rows(text, "ddp")[0][5]), said

    assert moments() == (9.4, "adamw keeps 8 bytes a parameter")
    # Hidden matrices have one of two: all but the embedding, 16,384 rows or so of 2,048, and vectors.
    less, said = moments("--model.optimizer.name=muon", "--trainer.strategy=ddp")
    assert 4.7 < less < 5.2
    assert said.startswith("muon keeps 4.")
    assert moments("--model.optimizer.name=torch.optim.SGD")[0] == 0
    assert moments("--trainer.precision=bf16-true")[0] == 4.7
    text = succeed("estimate", "--config", LARGE, "--gpus=1", "--model.optimizer.name=torch.optim.Adafactor")
    assert "torch.optim.Adafactor steps on numbers alone: taken to keep what AdamW does" in text
    assert "torch.optim.Adafactor keeps 8 bytes" in text


def test_a_budget_says_how_many_steps_there_are() -> None:
    plain = [f"--config={CONF / 'base.yaml'}", f"--config={CONF / 'arm' / 'plain.yaml'}", "--gpus=1"]
    by_steps = succeed("estimate", *plain, "--trainer.max_steps=307")
    assert succeed("estimate", *plain, "--trainer.budget.flops=7933044326400") == by_steps
    assert succeed("estimate", *plain, "--trainer.budget.flops=9e12") != by_steps


def test_encodings_whose_work_is_not_counted_are_named() -> None:
    text = succeed("estimate", "--config", LARGE, "--model.position=t5", "--model.position_options={}", "--gpus=1")
    assert "model.position=t5 transforms attention scores" in text


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    succeed("estimate", "--config", LARGE, "--gpus=8", f"--figure={tmp_path / 'scaling.png'}")
    content = (tmp_path / "scaling.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert 10_000 < len(content) < 150_000


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--config: expected a configuration as `fit` takes it"),
        (["--config=nowhere.yaml"], "--config=nowhere.yaml: no such file"),
        (["--config", LARGE, "--device=h10"], "--device=h10: expected one of a10, a10g, a100"),
        (["--config", LARGE, "--device=h10"], "did you mean 'h100'?"),
        (["--config", LARGE, "--gpus=0"], "--gpus=0: expected 1 or more"),
        (["--config", LARGE, "--gpus", "8", "-1"], "--gpus=-1: expected 1 or more"),
        (["--config", LARGE, "--gpus=many"], "--gpus: invalid int value: 'many'"),
        (["--config", LARGE, "--mfu=1.5"], "--mfu=1.5: expected a share in (0, 1]"),
        (["--config", LARGE, "--mfu=nan"], "--mfu=nan: expected a share in (0, 1]"),
        (["--config", LARGE, "--mfu=0.4", "--measured_tokens_per_s=3"], "--mfu: no assumption is needed beside"),
        (["--config", LARGE, "--network_gb_per_s=0"], "--network_gb_per_s=0.0: expected a positive number"),
        (["--config", LARGE, "--network_gb_per_s=inf"], "--network_gb_per_s=inf: expected a positive number"),
        (["--config", LARGE, "--hidden=2"], "--hidden=2.0: expected a share from 0 to 1"),
        (["--config", LARGE, "--netwrk_gb_per_s=1"], "did you mean '--network_gb_per_s'?"),
        (["--config", LARGE, "--model.n_layer=3"], "did you mean 'model.n_layers'?"),
        (["--config", LARGE, "stray"], "stray: no option"),
        (["--config", LARGE, "--model.n_heads=7"], "model.n_heads=7: expected a divisor of d_model=2048"),
        (["--config", LARGE, "--trainer.max_steps=-1"], "trainer.max_steps=-1: expected a number of steps"),
        (["--config", LARGE, "--trainer.precision=32-true"], "trainer.precision=32-true: expected one of auto, bf16"),
        (["--config", LARGE, "--model.position=learned", "--model.position_options={}", "--data.block_size=4096"],
         "data.block_size=4096: blocks of 4096 tokens are longer than the table"),
        (["--config", LARGE, "--model.position=coupled", "--model.position_options={}"],
         "model.position='coupled': expected another"),
        (["--config", CONF / "task" / "list_recall_nano.yaml"], "data.task=list_recall: expected a run on text"),
        (["--config", LARGE, "--figure=nowhere/x.png"], "--figure=nowhere/x.png: expected a file in a folder that"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_estimated_is_refused_in_one_line(options: list[str | Path], expected: str) -> None:
    outcome = run("estimate", *options)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome
    assert expected in outcome.err
