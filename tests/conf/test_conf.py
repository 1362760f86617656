"""Every file under conf/ is read by the parser of today, and trains.

The experiments run two steps of a small model on local text; an arm is laid over the demo and over a task, each where
it has a meaning.
"""

import json
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.cli.training import TrainingCLI, quiet
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule
from lightning_metatok.lit.budget import Budget, Cost, read_budget
from lightning_metatok.lit.callbacks.arm_card import arm_name, differences
from lightning_metatok.lit.spending import step_cost
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.yaml_files import with_marks
from tests.system.helpers import TINY_TASK, curve, run, succeed

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = sorted(CONF.glob("*.yaml"))
TASKS = sorted((CONF / "task").glob("*.yaml"))
NANO = CONF / "task" / "list_recall_nano.yaml"
ARMS = sorted((CONF / "arm").glob("*.yaml"))
OVERLAYS = sorted((CONF / "debug").glob("*.yaml"))
FOR_TASKS_ALONE = {"meta-every", "location-prompt"}
"""Arms that need segments, which text has none of, or prompts."""
COUNTS_ANEW = {"rmt"}
"""Arms that count positions themselves, and refuse ids of a task."""
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
NAMES = {
    "plain": "plain",
    "pause": "pause",
    "meta": "meta",
    "landmark": "landmark",
    "hils": "hils",
    "matched": "matched",
    "meta-every": "meta (every)",
    "meta-finite-fill": "meta (fill -1e+09)",
    "shared": "meta (shared)",
    "some-layers": "meta (layers 1 3)",
    "wider-plain": "plain",
    "flops-plain": "plain",
    "own-qkv": "own_qkv",
    "ksa": "own_qkv (chunk_window 2 own True)",
    "rmt": "plain (rmt 64 4 3)",
    "location-prompt": "location (after, over prompt, prefix_lm)",
}
"""Files under conf/arm, and how a run with them is called."""
PLAIN = {"plain", "wider-plain", "flops-plain", "streaming", "sink", "omninet", "location", "regular-gpt", "blockwise"}
PLAIN |= {"omninet_mlm", "rmt", "sepllm"}
"""Arms and experiments without marks."""
OWN = {
    "wider-plain": {("model", "d_ff")},
    "flops-plain": {("trainer", "budget")},
    "sink": {("model", "denominator")},
    "regular-gpt": {("model", "shared_layers")},
    "blockwise": {("model", "position")},
    "rmt": {("model", "recurrence"), ("model", "recurrence_options")},
    "sepllm": {("model", "separators")},
}
"""What an arm sets beside its point on the axes."""
FOR_TEXT_ALONE = {"sepllm"}
"""Arms that need text that marks itself, which symbols of tasks do not."""
NO_BUDGET = "--trainer.budget.flops=null"
"""For an arm that trains as long as a whole run costs."""
OF_DATA = {"meta_fraction", "meta_placement"}
"""Keys under `data` that an arm may set."""
ANY_DEPTH = "--model.mechanism_options.layers=[1]"
"""For the arm that names layers of a deeper model."""
SHORT = "--model.recurrence_options={segment: 16, memory: 2, bptt: 2}"
"""For an arm that cuts blocks into segments, whatever their length."""
AT_NANO = {"some-layers": [ANY_DEPTH], "flops-plain": [NO_BUDGET], "rmt": [SHORT]}
"""What an arm needs beside its file in a small run."""


class ParseOnly(TrainingCLI):
    """The command line up to the point where it would build the classes."""

    def instantiate_classes(self) -> None:
        """Build nothing."""


@cache
def parse(*paths: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """The whole configuration that these files make, laid over each other, and `options` over them."""
    quiet()
    return ParseOnly("fit", [*(f"--config={path}" for path in paths), *options]).config.as_dict()


def transformer(config: dict[str, Any]) -> TransformerConfig:
    """The model of a whole configuration; building it checks it."""
    names = {field.name for field in fields(TransformerConfig)}
    return TransformerConfig(**{key: value for key, value in config["model"].items() if key in names})


def n_parameters(*paths: Path) -> int:
    """Parameters of the model of these files, built without memory."""
    with torch.device("meta"):
        return MetaTransformer(transformer(parse(*paths))).n_parameters()


def of_arm(name: str, base: Path) -> dict[str, Any]:
    """The whole configuration of an arm laid over `base`."""
    return parse(base, CONF / "arm" / f"{name}.yaml")


def name_of_run(arm: str) -> str:
    """What a run of the arm is called."""
    config = of_arm(arm, NANO)
    placement = "none" if config["data"]["meta_fraction"] == 0 else config["data"]["meta_placement"]
    return arm_name(differences(transformer(config), placement), "hint")


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
@pytest.mark.parametrize("task", [pytest.param(path, id=path.stem) for path in TASKS])
def test_arms_that_set_data_or_layers_can_be_laid_over_every_task(task: Path) -> None:
    alone = parse(task)
    assert alone["run_dir"] == f"runs/{task.stem}"
    for name in ("plain", "meta-every", "some-layers"):
        arm = of_arm(name, task)
        assert {key for key in alone["data"] if arm["data"][key] != alone["data"][key]} <= OF_DATA
        if name == "some-layers" and alone["model"]["n_layers"] < 4:
            with pytest.raises(UserError, match=r"mechanism_options\.layers"):
                transformer(arm)
        else:
            transformer(arm)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("paths", CASES)
def test_a_config_parses_and_its_parts_agree(paths: list[Path]) -> None:
    config = parse(*paths)
    assert config["model"]["vocab_size"] == config["data"]["vocab_size"]
    block_size, within = config["data"]["block_size"], config["data"]["meta_length"] == "within"
    assert config["model"]["max_positions"] == (block_size if within else with_marks(block_size))
    assert config["data"]["seed"] == config["seed_everything"]
    assert config["run_dir"] == f"runs/{paths[0].stem}"


@pytest.mark.parametrize("position", ["learned", "fope"])
def test_arms_have_tables_of_one_size_which_hold_their_blocks(position: str) -> None:
    """What depends on model.max_positions is the same in all arms: a comparison needs shared parameters to be equal."""
    found = {}
    for arm, fraction in (("plain", 0.0), ("meta", 0.5), ("matched", 0.1)):
        options = f"--model.position={position}", f"--data.meta_fraction={fraction}"
        config = parse(CONF / "base.yaml", CONF / "arm" / f"{arm}.yaml", options=options)
        assert MetaTokenDataModule(**config["data"]).block_length <= config["model"]["max_positions"]
        torch.manual_seed(1)
        found[arm] = MetaTransformer(transformer(config)).positions.state_dict()
    assert found["plain"], "it has a table"
    for tables in found.values():
        assert {name: table.shape for name, table in tables.items()} == {
            name: table.shape for name, table in found["plain"].items()
        }


@pytest.mark.parametrize("paths", [pytest.param([path], id=path.stem) for path in EXPERIMENTS])
def test_an_experiment_is_complete_alone_and_validates_within_the_run(paths: list[Path]) -> None:
    trainer = parse(*paths)["trainer"]
    n_batches = trainer["max_steps"] * trainer["accumulate_grad_batches"]
    assert n_batches % trainer["val_check_interval"] == 0, "the last validation is at the last step"
    assert n_batches >= 2 * trainer["val_check_interval"]


def test_there_are_configs_and_arms() -> None:
    assert {path.stem for path in EXPERIMENTS} >= {
        "base",
        "debug",
        "gpt2_small_c4",
        "gpt2_small_c4_ape",
        "metatok_1b_c4",
    }
    assert {path.stem for path in ARMS} >= set(NAMES)


def test_no_two_arms_are_called_the_same() -> None:
    names = []
    for path in ARMS:
        config = of_arm(
            path.stem, NANO
        )  # what is changed beside the axes stands beside the name where runs are compared
        names.append((name_of_run(path.stem), config["model"]["d_ff"], str(config["trainer"]["budget"])))
    assert len(set(names)) == len(names), names


def test_the_arms_have_the_parameters_that_their_files_say() -> None:
    sizes = {path.stem: n_parameters(NANO, path) for path in ARMS}
    model = parse(NANO)["model"]
    n_layers, d = model["n_layers"], model["d_model"]
    assert sizes["meta"] == n_parameters(NANO)
    assert sizes["matched"] == sizes["meta-every"] == sizes["meta-finite-fill"] == sizes["meta"]
    assert sizes["plain"] == sizes["pause"]
    # A second attention and its norm: q, k, v, o and one gain.
    assert sizes["meta"] - sizes["pause"] == n_layers * (4 * d**2 + d)
    assert sizes["some-layers"] - sizes["pause"] == (sizes["meta"] - sizes["pause"]) // 2
    # q, k and v of marks.
    assert sizes["own-qkv"] - sizes["pause"] == sizes["ksa"] - sizes["pause"] == n_layers * 3 * d**2
    assert sizes["shared"] - sizes["pause"] == n_layers * d


def test_wider_plain_has_the_parameters_of_meta_but_for_the_gains_of_its_norms() -> None:
    meta, wider = (n_parameters(CONF / "base.yaml", CONF / "arm" / f"{name}.yaml") for name in ("meta", "wider-plain"))
    assert (meta, wider) == (1_181_312, 1_180_800)
    model = parse(CONF / "base.yaml")["model"]
    assert meta - wider == model["n_layers"] * model["d_model"]


def cost_of_a_step(name: str) -> Cost:
    """What a step of an arm of base.yaml costs."""
    config = of_arm(name, CONF / "base.yaml")
    with torch.device("meta"):
        model = MetaTransformer(transformer(config))
    return step_cost(model, MetaTokenDataModule(**config["data"]), 1)


def test_flops_plain_takes_the_flops_of_meta_to_within_a_step() -> None:
    budget = read_budget(of_arm("flops-plain", CONF / "base.yaml")["trainer"]["budget"])
    of_meta = parse(CONF / "base.yaml")["trainer"]["max_steps"] * cost_of_a_step("meta").flops
    assert budget == Budget(flops=of_meta)
    plain = cost_of_a_step("plain")
    assert of_meta - plain.flops < budget.steps(plain) * plain.flops <= of_meta


@pytest.mark.parametrize("base", [pytest.param(CONF / "base.yaml", id="text"), pytest.param(NANO, id="task")])
def test_the_arms_differ_in_what_they_name_and_nothing_else(base: Path) -> None:
    named = {("data", key) for key in OF_DATA} | {("model", "attention_backend")}
    named |= {("model", key) for key in ("pattern", "pattern_options", "mechanism", "mechanism_options")}
    alone = parse(base)
    for path in ARMS:
        if path.stem in FOR_TASKS_ALONE and base != NANO:
            continue
        arm = parse(base, path)
        differing = {
            (group, key) for group in ("data", "model", "trainer") for key in alone[group]
            if arm[group][key] != alone[group][key]
        }  # fmt: skip
        assert differing <= named | OWN.get(path.stem, set())
    assert of_arm("meta", base) | {"config": None} == alone | {"config": None}


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(path, id=path.stem, marks=[] if path in (CONF / "base.yaml", NANO) else pytest.mark.slow)
        for path in (CONF / "base.yaml", *TASKS)
    ],
)
def test_arms_begin_with_the_same_weights(base: Path) -> None:
    found: dict[tuple[str, torch.Size], list[torch.Tensor]] = {}
    arms = [path for path in ARMS if base in TASKS or path.stem not in FOR_TASKS_ALONE]
    if parse(base)["model"]["position"] == "coupled":
        arms = [path for path in arms if path.stem not in COUNTS_ANEW]
    for path in arms:
        config = parse(base, path)
        heads, ratio = config["model"]["n_heads"], (config["model"]["d_ff"] or 0) / config["model"]["d_model"]
        sizes = {"n_layers": 4, "d_model": 8 * heads, "d_ff": int(8 * heads * ratio) or None, "vocab_size": 96}
        small = transformer({"model": {**config["model"], **sizes}})
        for name, weight in MetaTransformer(small, config["seed_everything"]).state_dict().items():
            found.setdefault((name, weight.shape), []).append(weight)
    for (name, _), weights in found.items():
        assert all(torch.equal(weights[0], weight) for weight in weights), name
    times = {name: len(weights) for (name, _), weights in found.items()}
    shared = sum(parse(base, path)["model"]["shared_layers"] for path in arms)  # these have the first block alone
    assert times["embedding.weight"] == times["blocks.0.attention.projections.qkv.weight"] == len(arms)
    assert times["blocks.3.attention.projections.qkv.weight"] == len(arms) - shared
    at_some = [
        weights for (name, _), weights in found.items() if name.endswith("meta_attention.projections.qkv.weight")
    ]
    assert len(at_some) == 4
    assert min(map(len, at_some)) >= 3, "second attentions begin alike, too"


@pytest.mark.parametrize(("arm", "name"), [pytest.param(*pair, id=pair[0]) for pair in NAMES.items()])
def test_an_arm_is_called_in_a_run_what_its_file_makes_of_it(arm: str, name: str) -> None:
    assert name_of_run(arm) == name


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
