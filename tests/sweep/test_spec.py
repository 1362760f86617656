"""What a sweep file may say; a mistake is one line that names the file, the key, the value and what was expected."""

from typing import Any

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.sweep import read_spec

GIVEN: dict[str, Any] = {"configs": ["conf/base.yaml"]}


def test_a_whole_file_is_read_with_its_types() -> None:
    spec = read_spec(
        {
            **GIVEN,
            "set": {"trainer.max_steps": 10, "model.optimizer.decay_steps": "${trainer.max_steps}"},
            "arms": {"plain": {"configs": ["a.yaml"]}, "meta": {"set": {"model.meta_attention": True}}, "empty": None},
            "grid": {"model.position": ["rotary", "none"]},
            "zip": [{"model.d_model": [64, 128], "model.n_heads": [2, 4]}],
            "skip": [{"arm": "plain", "model.position": ["none"]}],
            "seeds": [1, 2],
            "resources": {"partition": "main", "minutes": 5, "signal_lead_s": 30},
        },
        "x.yaml",
    )
    assert spec.arms["meta"].set == {"model.meta_attention": True}
    assert spec.arms["empty"].configs == []
    assert spec.set["model.optimizer.decay_steps"] == "${trainer.max_steps}"
    assert spec.axes() == ["arm", "model.position", "model.d_model", "model.n_heads", "seed_everything"]
    assert (spec.resources.partition, spec.resources.nodes, spec.minutes) == ("main", 1, 10.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grids": {}}, "unknown key 'grids'; did you mean 'grid'?"),
        ({"arms": {"a": {"config": []}}}, "unknown key 'arms.a.config'; did you mean 'configs'?"),
        ({"resources": {"gpu": 1}}, "unknown key 'resources.gpu'"),
        ({"configs": []}, r"configs=\[\]: expected at least one file"),
        ({"configs": [], "arms": {"a": {"configs": ["a.yaml"]}, "b": {}}}, r"configs=\[\]: .* here or in every arm"),
        ({"seeds": []}, r"seeds=\[\]: expected different integers"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: expected different integers"),
        ({"seeds": ["one"]}, "seeds"),
        ({"minutes": 0}, "minutes=0.0: expected a number above 0"),
        ({"grid": {"model.d_model": []}}, r"grid.model.d_model=\[\]: expected at least one value"),
        ({"grid": {"model.d_model": 64}}, "grid"),
        ({"zip": [{"a": [1], "b": [1, 2]}]}, r"zip\[0\]: expected as many values of each key"),
        ({"grid": {"a": [1]}, "zip": [{"a": [2]}]}, "a: expected each key in one place of grid and zip"),
        ({"grid": {"seed_everything": [1]}}, "seed_everything: expected"),
        ({"set": {"run_dir": "x"}}, "run_dir: expected no value"),
        ({"skip": [{}]}, r"skip\[0\]={}: expected keys and values"),
        (
            {"grid": {"model.position": ["none"]}, "skip": [{"model.positions": "none"}]},
            "did you mean 'model.position'?",
        ),
        ({"resources": {"nodes": 0}}, "resources.nodes=0: expected at least 1"),
        ({"resources": {"minutes": 1, "signal_lead_s": 60}}, "resources.signal_lead_s=60: expected fewer seconds"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_spec({**GIVEN, **change}, "x.yaml")
    assert str(error.value).startswith("x.yaml: ")
    assert "\n" not in str(error.value)
