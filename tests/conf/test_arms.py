"""Arms under conf/arm: what they are called, what they differ in, and that they begin alike."""

from pathlib import Path

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule
from lightning_metatok.lit.budget import Budget, Cost, read_budget
from lightning_metatok.lit.spending import step_cost
from lightning_metatok.model import MetaTransformer
from tests.conf.parsing import (
    ARMS,
    CONF,
    COUNTS_ANEW,
    FOR_TASKS_ALONE,
    NANO,
    TASKS,
    n_parameters,
    name_of_run,
    of_arm,
    parse,
    transformer,
)

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
    "rmt": "plain (rmt 64 4 3 False)",
    "location-prompt": "location (after, over prompt, prefix_lm)",
}
"""Files under conf/arm, and how a run with them is called."""
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
OF_DATA = {"meta_fraction", "meta_placement"}
"""Keys under `data` that an arm may set."""


def test_no_two_arms_are_called_the_same() -> None:
    names = []
    for path in ARMS:
        config = of_arm(
            path.stem, NANO
        )  # what is changed beside the axes stands beside the name where runs are compared
        names.append((name_of_run(path.stem), config["model"]["d_ff"], str(config["trainer"]["budget"])))
    assert len(set(names)) == len(names), names
    assert {path.stem for path in ARMS} >= set(NAMES)


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
