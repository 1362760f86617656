"""Every file under conf/ is read by the parser of today, and trains.

The experiments run two steps of a small model on local text; an arm is laid over the demo and over a task, each where
it has a meaning.
"""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.yaml_files import with_marks
from tests.conf.parsing import (
    ARMS,
    CONF,
    EXPERIMENTS,
    FOR_TASKS_ALONE,
    NANO,
    OVERLAYS,
    n_parameters,
    parse,
    transformer,
)
from tests.system.helpers import TINY_TASK, curve, run, succeed

CASES = [
    *(pytest.param([path], id=path.stem) for path in EXPERIMENTS),
    *(
        pytest.param([CONF / "base.yaml", path], id=f"base+{path.stem}")
        for path in ARMS
        if path.stem not in FOR_TASKS_ALONE
    ),
]
TRAINED_AT_ONCE = {"plain", "meta", *(path.stem for path in EXPERIMENTS)}
"""What `make test` trains; `make test-slow` trains all."""
SMALL = [
    "--model.n_layers=2",
    "--model.n_heads=2",
    "--model.d_model=32",
    "--model.vocab_size=512",
    "--model.max_positions=96",
    "--model.optimizer.warmup_steps=0",
    "--data.corpus_subset=null",
    "--data.tokenizer=null",
    "--data.vocab_size=512",
    "--data.block_size=64",
    "--data.batch_size=2",
    "--data.num_workers=0",
    "--data.validation_blocks=2",
    "--data.max_documents=40",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.num_nodes=1",
    "--trainer.strategy=auto",
    "--trainer.max_steps=2",
    "--trainer.accumulate_grad_batches=1",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.precision=32-true",
    "--trainer.accelerator=cpu",
    "--trainer.strategy=auto",
    "--trainer.devices=1",
    "--trainer.num_nodes=1",
    "--ablation.windows=1",
    "--sample.max_new_tokens=2",
]
TINY_TASK_SIZES = [option for option in TINY_TASK if not option.startswith("--trainer")]
SMALL_TASK = [
    *TINY_TASK,
    "--trainer.precision=32-true",
]
PLAIN = {"plain", "wider-plain", "flops-plain", "streaming", "sink", "omninet", "location", "regular-gpt", "blockwise"}
PLAIN |= {"omninet_mlm", "rmt", "sepllm"}
"""Arms and experiments without marks."""
FOR_TEXT_ALONE = {"sepllm"}
"""Arms that need text that marks itself, which symbols of tasks do not."""
NO_BUDGET = "--trainer.budget.flops=null"
"""For an arm that trains as long as a whole run costs."""
ANY_DEPTH = "--model.mechanism_options.layers=[1]"
"""For the arm that names layers of a deeper model."""
SHORT = "--model.recurrence_options={segment: 16, memory: 2, bptt: 2}"
"""For an arm that cuts blocks into segments, whatever their length."""
AT_NANO = {"some-layers": [ANY_DEPTH], "flops-plain": [NO_BUDGET], "rmt": [SHORT]}
"""What an arm needs beside its file in a small run."""


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(
            *case.values, id=case.id, marks=[] if case.id.split("+")[-1] in TRAINED_AT_ONCE else pytest.mark.slow
        )
        for case in CASES
    ],
)
def test_a_config_trains_two_steps(paths: list[Path], corpus: Path, tmp_path: Path) -> None:
    configs = [f"--config={path}" for path in paths]
    succeed(
        "fit",
        *configs,
        *SMALL,
        *AT_NANO.get(paths[-1].stem, ()),
        f"--data.corpus={corpus}",
        f"--run_dir={tmp_path}/run",
    )
    assert [step for step, _ in curve(tmp_path / "run", "loss/train")] == [1, 2]
    assert len(curve(tmp_path / "run", "loss/val")) == 1
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    kept, dropped = (curve(tmp_path / "run", f"ablation/{name}_1x") for name in ("kept", "dropped"))
    assert len(kept) == 1
    assert len(dropped) == (0 if paths[-1].stem in PLAIN else 1)


@pytest.mark.slow  # twenty runs
@pytest.mark.parametrize("arm", [pytest.param(path, id=path.stem) for path in ARMS if path.stem not in FOR_TEXT_ALONE])
def test_an_arm_trains_two_steps_on_a_task(arm: Path, tmp_path: Path) -> None:
    small = [*SMALL_TASK, *AT_NANO.get(arm.stem, ())]
    succeed("fit", f"--config={NANO}", f"--config={arm}", *small, f"--run_dir={tmp_path}/run")
    assert [step for step, _ in curve(tmp_path / "run", "loss/train")] == [1, 2]
    assert len(curve(tmp_path / "run", "accuracy/exact/val")) == 1
    tokens, source_tokens = (curve(tmp_path / "run", f"throughput/{n}")[-1][1] for n in ("tokens", "source_tokens"))
    marks_a_prompt = (tokens - source_tokens) / (2 * 2)  # two steps of two prompts
    if arm.stem in FOR_TASKS_ALONE:
        assert marks_a_prompt > (0 if arm.stem == "location-prompt" else 2)
    else:
        assert marks_a_prompt == (0 if arm.stem in PLAIN else 2)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("overlay", [pytest.param(path, id=path.stem) for path in OVERLAYS])
@pytest.mark.parametrize("base", [pytest.param(CONF / "debug.yaml", id="text"), pytest.param(NANO, id="task")])
def test_a_debug_overlay_does_what_it_says(overlay: Path, base: Path, corpus: Path, tmp_path: Path) -> None:
    folder, text = tmp_path / "run", base != NANO
    if overlay.stem == "overfit" and not text:
        pytest.skip("it is for text")
    small = [f"--data.corpus={corpus}", "--sample.max_new_tokens=2", "--ablation.windows=1"] if text else []
    small += ["--model.optimizer.lr=2e-2"] if overlay.stem == "overfit" else [] if text else TINY_TASK_SIZES
    succeed("fit", f"--config={base}", f"--config={overlay}", *small, f"--run_dir={folder}")
    steps = parse(base, overlay)["trainer"]["max_steps"]
    trained, validated = curve(folder, "loss/train"), curve(folder, "loss/val")
    assert (trained[-1][0], validated[-1][0]) == (steps, steps)
    if overlay.stem == "limit":
        assert steps == 2
    elif overlay.stem == "overfit":
        assert trained[-1][1] < validated[-1][1] - 0.5
    elif overlay.stem == "profiler":
        assert "aten::" in next(folder.glob("fit-steps*.txt")).read_text()
        assert json.loads(next(folder.glob("fit-steps*.json")).read_text())["traceEvents"]


def test_an_arm_for_tasks_is_refused_with_text_in_one_line(tmp_path: Path) -> None:
    for name in FOR_TASKS_ALONE:
        outcome = run(
            *("fit", f"--config={CONF / 'base.yaml'}", f"--config={CONF / 'arm' / f'{name}.yaml'}"),
            f"--run_dir={tmp_path}/run",
        )
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "data.meta_placement" in outcome.err


@pytest.mark.one_in(3)
@pytest.mark.parametrize("paths", CASES)
def test_a_config_parses_and_its_parts_agree(paths: list[Path]) -> None:
    config = parse(*paths)
    assert config["model"]["vocab_size"] == config["data"]["vocab_size"]
    block_size, within = config["data"]["block_size"], config["data"]["meta_length"] == "within"
    assert config["model"]["max_positions"] == (block_size if within else with_marks(block_size))
    assert config["data"]["seed"] == config["seed_everything"]
    assert config["run_dir"] == f"runs/{paths[0].stem}"


@pytest.mark.parametrize("paths", [pytest.param([path], id=path.stem) for path in EXPERIMENTS])
def test_an_experiment_is_complete_alone_and_validates_within_the_run(paths: list[Path]) -> None:
    trainer = parse(*paths)["trainer"]
    n_batches = trainer["max_steps"] * trainer["accumulate_grad_batches"]
    assert n_batches % trainer["val_check_interval"] == 0, "the last validation is at the last step"
    assert n_batches >= 2 * trainer["val_check_interval"]


def test_there_are_configs() -> None:
    assert {path.stem for path in EXPERIMENTS} >= {
        "base",
        "debug",
        "gpt2_small_c4",
        "gpt2_small_c4_ape",
        "metatok_1b_c4",
    }


def test_the_papers_models_have_the_papers_sizes() -> None:
    d, layers, vocabulary = 768, 12, 50304
    per_layer = 4 * d**2 + 4 * d**2 + 8 * d**2 + 3 * d  # two attentions, the MLP, three norms without bias
    expected = vocabulary * d + layers * per_layer + d
    assert n_parameters(CONF / "gpt2_small_c4.yaml") == expected == 151_908_096  # "152M"
    assert n_parameters(CONF / "gpt2_small_c4_ape.yaml") == expected + 1024 * d


def test_the_large_config_has_the_sizes_that_its_file_says() -> None:
    config = parse(CONF / "metatok_1b_c4.yaml")
    data, trainer = config["data"], config["trainer"]
    parameters = n_parameters(CONF / "metatok_1b_c4.yaml")
    assert round(parameters / 1e9, 2) == 1.18
    plain = TransformerConfig(**{**asdict(transformer(config)), "mechanism": "none"})
    with torch.device("meta"):
        assert round(MetaTransformer(plain).n_parameters() / 1e9, 2) == 0.91
    blocks = data["batch_size"] * trainer["devices"] * trainer["num_nodes"] * trainer["accumulate_grad_batches"]
    assert (blocks, blocks * data["block_size"]) == (512, 1_048_576)
    assert blocks % (64 * data["batch_size"]) == 0, "64 GPUs take the same micro-batches"
    source = data["block_size"] - int(data["meta_fraction"] * data["block_size"])
    assert source == 1844
    assert trainer["max_steps"] * blocks * source / parameters == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("name", "lacks"), [("gpt2_small_c4", "data.tokenizer='gpt2'"), ("metatok_1b_c4", "trainer.accelerator=gpu")]
)
def test_large_configs_say_in_one_line_what_this_machine_lacks(name: str, lacks: str, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, and may reach the hub")
    outcome = run("fit", f"--config={CONF / f'{name}.yaml'}", f"--run_dir={tmp_path}/run")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert lacks in outcome.err
    assert not (tmp_path / "run").exists()
