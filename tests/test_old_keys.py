"""Keys of earlier versions: said in new ones where they mean the same, refused in a line where they do not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig
from lightning_metatok.old_keys import OLD, Mechanisms, renamed_in, translated, translated_flat

SHAPE: dict[str, Any] = {"n_layers": 4, "n_heads": 2, "d_model": 16, "vocab_size": 50}
NOTHING: dict[str, Any] = {}
CASES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"meta_attention": True}, "meta", NOTHING),
    ({"meta_attention": False}, "none", NOTHING),
    ({"meta_attention": False, "meta_over": "all", "meta_shared": True, "meta_layers": [1]}, "none", NOTHING),
    ({"meta_over": "meta"}, "meta", NOTHING),
    ({"meta_over": "all"}, "matched", NOTHING),
    ({"meta_over": "all", "meta_layers": [1], "meta_shared": True}, "matched", {"layers": [1], "shared": True}),
    ({"meta_fill": -1e9}, "meta", {"fill": -1e9}),
    ({"meta_shared": True, "meta_fill": None}, "meta", {"shared": True}),
    ({"meta_layers": [1, 3]}, "meta", {"layers": [1, 3]}),
    ({"meta_layers": []}, "meta", {"layers": []}),
    ({**OLD, "meta_fill": -5.0, "meta_layers": [0]}, "meta", {"layers": [0], "fill": -5.0}),
]


@pytest.mark.parametrize(("old", "mechanism", "options"), CASES)
def test_old_keys_are_said_in_new_ones(old: dict[str, Any], mechanism: str, options: dict[str, Any]) -> None:
    new = translated({"n_layers": 4, **old, "norm": "pre"})
    assert new["mechanism"] == mechanism
    assert new["mechanism_options"] == options
    assert not new.keys() & OLD.keys()
    assert (new["n_layers"], new["norm"], new["pattern"]) == (4, "pre", "causal")
    config = TransformerConfig(**{**SHAPE, **new})
    assert config.mechanism == mechanism


def test_what_has_no_old_key_is_left_alone() -> None:
    options = {"n_layers": 4, "mechanism": "matched", "mechanism_options": {"layers": [1]}}
    assert translated(options) == options
    assert translated_flat({"model.mechanism": "none", "data.seed": 1}) == {"model.mechanism": "none", "data.seed": 1}


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ({"meta_over": "al"}, "model.meta_over='al': expected one of meta, all; now model.mechanism says it"),
        ({"meta_attention": "perhaps"}, "model.meta_attention=perhaps: expected bool; now model.mechanism says it"),
        ({"meta_shared": 3}, "model.meta_shared=3: expected bool"),
        ({"meta_over": "all", "meta_fill": -1.0}, "model.meta_fill=-1.0: expected no value with model.meta_over='all'"),
        ({"meta_over": "all", "mechanism": "meta"}, "model.meta_over=all: expected no key of earlier versions beside"),
    ],
)
def test_old_keys_that_say_nothing_are_refused(old: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        translated(old)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flat_keys_are_those_of_a_file_in_new_keys() -> None:
    old = {"model.meta_attention": True, "model.meta_shared": True, "model.n_layers": 2, "data.meta_fraction": 0.1}
    assert translated_flat(old) == {
        "data.meta_fraction": 0.1,
        "model.n_layers": 2,
        "model.pattern": "causal",
        "model.pattern_options": "{}",
        "model.mechanism": "meta",
        "model.mechanism_options.shared": True,
    }
    assert translated_flat({"model.meta_attention": False})["model.mechanism_options"] == "{}"


def test_slots_have_another_key_now() -> None:
    assert renamed_in("data", {"meta_positions": [3], "seed": 1}) == {
        "seed": 1,
        "meta_placement_options": {"slots": [3]},
    }
    assert renamed_in("data", {"meta_positions": None, "seed": 1}) == {"seed": 1}
    assert translated_flat({"data.meta_positions": "[3]"}) == {"data.meta_placement_options.slots": "[3]"}
    assert translated_flat({"data.meta_positions": None}) == {"data.meta_placement_options": "{}"}


# -- parts that come one after the other


def read(*parts: dict[str, Any]) -> dict[str, Any]:
    mechanisms = Mechanisms()
    for part in parts:
        mechanisms.add(part)
    return mechanisms.new


def test_later_parts_count_whatever_keys_they_use() -> None:
    assert read() == {"mechanism": "meta", "mechanism_options": {}}
    assert read({"mechanism": "none"}, {"meta_attention": True}) == read()
    assert read({"mechanism": "matched"}, {"meta_over": "meta"}) == read()
    assert read({"meta_over": "all"}, {"mechanism": "none"}) == {"mechanism": "none", "mechanism_options": {}}
    some = {"mechanism": "meta", "mechanism_options": {"layers": [1, 3]}}
    assert read(some, {"meta_shared": True})["mechanism_options"] == {"layers": [1, 3], "shared": True}
    assert read(some, {"mechanism_options.fill": -1.0}, {"meta_shared": True}) == {
        "mechanism": "meta",
        "mechanism_options": {"layers": [1, 3], "fill": -1.0, "shared": True},
    }
    assert read(some, {"meta_layers": None}) == read()


def test_old_keys_over_a_mechanism_that_they_cannot_say_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.meta_shared=True: .* model.mechanism='landmark'; expected model.mech"):
        read({"mechanism": "landmark"}, {"meta_shared": True})
    with pytest.raises(UserError, match=r"model\.meta_attention=False: a key of earlier versions"):
        read({"mechanism": "meta", "mechanism_options": {"what": 1}}, {"meta_attention": False})
    assert read({"mechanism": "landmark"}, {"mechanism": "none"}, {"meta_over": "all"})["mechanism"] == "none"


old_parts = st.fixed_dictionaries(
    {},
    optional={
        "meta_attention": st.booleans(),
        "meta_over": st.sampled_from(["meta", "all"]),
        "meta_shared": st.booleans(),
        "meta_layers": st.none() | st.just([1]),
    },
)


@given(st.lists(old_parts, max_size=4))
def test_parts_in_old_keys_are_their_union_laid_over_the_defaults(parts: list[dict[str, Any]]) -> None:
    together: dict[str, Any] = dict(OLD)
    for part in parts:
        together |= part
    new = translated(together)
    assert read(*parts) == {key: new[key] for key in ("mechanism", "mechanism_options")}
