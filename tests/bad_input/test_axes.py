"""What is wrong with a point on the axes of the model is said in one line that names the axis, the value and why."""

import sys
from pathlib import Path

import pytest

from tests.bad_input.conftest import Refused

LAB = '''
import torch
from lightning_metatok.errors import UserError
from lightning_metatok.model.attention.patterns import Pattern
from lightning_metatok.model.mechanisms import Mechanism
from lightning_metatok.model.positions import PositionEncoding


class Ahead(Pattern):
    """Sees everything."""

    def allowed(self, q, k):
        return torch.ones_like(q.place == k.place)


class Two(Pattern):
    """Is composed of others."""

    causal = True

    def __init__(self, one, other):
        pass


class Picky(Mechanism):
    """Works with learned positions alone."""

    def check(self, config):
        if config.position != "learned":
            raise UserError(
                f"model.mechanism=Picky: expected model.position=learned, because it counts; it is {config.position}"
            )


class Unbound(PositionEncoding):
    """Needs an option that has no default."""

    def __init__(self, sizes, *, width: int) -> None:
        super().__init__()


class Other:
    """Is nothing of the kind."""

    def __init__(self, text):
        pass

    def documents(self):
        return []

    def fingerprint(self):
        return []


value = 3
'''
"""Of somebody else, in the folder that the command runs in."""

AXES = {"position": "rotary", "pattern": "causal", "mechanism": "matched"}
"""And a value of each."""

PATHS = [
    ("no_such_lab.Thing", "no_such_lab cannot be imported: ModuleNotFoundError: No module named 'no_such_lab'"),
    ("LAB.Othr", "has no Othr; did you mean 'Other'?"),
    ("LAB.Other", "expected a class that derives from lightning_metatok.model."),
    ("LAB.value", "it is of type int"),
    ("LAB_broken.Thing", "cannot be imported: RuntimeError: no luck"),
    ("LAB_leaving.Thing", "cannot be imported: SystemExit: 3"),
    ("json.JSONDecoder", "it is the class JSONDecoder"),
]

MORE = [
    ("--model.position=rotry", "model.position='rotry': expected one of none, "),
    ("--model.position=rotry", "; did you mean 'rotary'?"),
    ("--model.pattern=casual", "model.pattern='casual': expected one of causal, "),
    ("--model.pattern=casual", "; did you mean 'causal'?"),
    ("--model.mechanism=mta", "model.mechanism='mta': expected one of none, "),
    ("--model.mechanism=mta", "; did you mean 'meta'?"),
    ("--data.corpus=no_such_lab.Text", "data.corpus=no_such_lab.Text: no_such_lab cannot be imported"),
    ("--data.corpus=LAB.Ahead", "expected a class that derives from lightning_metatok.data.sources.Source"),
    ("--data.corpus=LAB.Other", "expected a class that is built without arguments"),
    # Options that belong to another class of the axis, or to none.
    ("--model.pattern_options.w=8", "model.pattern_options.w=8: expected no options for model.pattern='causal'"),
    ("--model.pattern_options.w=8", "; it belongs to 'window'"),
    ("--model.mechanism=none --model.mechanism_options.layers=[0]", "expected no options for model.mechanism='none'"),
    ("--model.mechanism=none --model.mechanism_options.layers=[0]", "; it belongs to 'meta' and 'matched' and"),
    ("--model.mechanism=matched --model.mechanism_options.fill=-1e9", "; it belongs to 'meta'"),
    ("--model.mechanism=landmark --model.mechanism_options.shared=true", "for model.mechanism='landmark'"),
    ("--model.position=alibi --model.position_options.base=5.0", "expected no options for model.position='alibi'"),
    ("--model.pattern=window --model.pattern_options.v=8", "expected one of w for model.pattern='window'"),
    ("--model.position=LAB.Unbound", "expected model.position_options.width"),
    # Classes that no model can have.
    ("--model.pattern=sinks_window --model.pattern_options.w=0", "model.pattern_options.w=0: expected 1 or more"),
    (
        "--model.pattern=chunk_meta --model.pattern_options.extra_sees=owns",
        "extra_sees='owns': expected one of earlier",
    ),
    (
        "--model.pattern=chunk_window --model.pattern_options.wide_every=9 --model.pattern_options.wide_back=20",
        "model.pattern_options.wide_every=9: expected at most model.n_layers=",
    ),
    (
        "--model.pattern=chunk_window --model.pattern_options.wide_every=2",
        "model.pattern_options.wide_back: expected with the other one",
    ),
    (
        "--data.meta_placement=prefix --data.meta_placement_options.n=0",
        "meta_placement_options.n=0: expected 1 or more",
    ),
    (
        "--model.pattern=LAB.Ahead --model.mechanism=none",
        "Ahead' cannot predict the next token: a token sees what stands behind it; expected a causal pattern",
    ),
    ("--model.pattern=LAB.Two", "missing a required argument: 'one'; expected a class that is built from its options"),
    (
        "--model.pattern=lightning_metatok.model.attention.patterns.Extra --model.mechanism=none",
        "expected a causal pattern",
    ),
    ("--model.pattern=lightning_metatok.model.attention.patterns.And", "missing a required argument: 'one'"),
    ("--model.mechanism=own_qkv --model.mechanism_options.anneal=[9,3]", "anneal=[9, 3]: expected two steps, [first,"),
    (
        "--model.mechanism_options.shared=true --model.mechanism_options.anneal=[0,9]",
        "anneal=[0, 9]: expected no value with shared=True",
    ),
    # Two axes that cannot work together.
    ("--model.mechanism=LAB.Picky", "expected model.position=learned, because it counts; it is rotary"),
    ("--model.position=alibi --model.attention_backend=sdpa", "because position='alibi' transforms scores"),
    ("--model.pattern=window --model.attention_backend=xformers", "because pattern='window' needs a mask"),
    ("--model.mechanism=landmark --model.attention_backend=sdpa", "because mechanism='landmark' transforms scores"),
    ("--model.mechanism_options.fill=-1e9 --model.attention_backend=xformers", "fill=-1000000000.0 needs a mask"),
    ("--model.mechanism_options.layers=[5]", "model.mechanism_options.layers=[5]: expected different block numbers"),
    ("--model.mechanism_options.layers=[0] --model.shared_layers=true", "model.shared_layers=True"),
    ("--model.mechanism=none --model.drop_positions=among", "model.drop_positions='among': expected one of"),
    ("--model.position=learned --model.drop_positions=self_attention", "position='learned' is added before all"),
    ("--model.pattern=bidirectional", "model.mechanism='meta' cannot see later tokens"),
    (
        "--model.pattern=bidirectional --model.mechanism=none",
        "data.objective='next': model.pattern='bidirectional' cannot predict the next token: a token sees what stands",
    ),
    (
        "--model.pattern=prefix_lm --model.mechanism=none",
        "data.objective='next': model.pattern='prefix_lm' cannot predict the next token within a prompt",
    ),
    ("--data.objective=masked", "data.objective='masked': expected model.pattern=bidirectional, which sees both"),
    (
        "--model.pattern=bidirectional --model.mechanism=none --data.objective=masked --data.retarget=true",
        "data.retarget=True: expected false with data.objective='masked'",
    ),
    ("--data.objective=maskd", "data.objective"),
    (
        "--data.objective=masked --data.mask_fraction=1.0",
        "data.mask_fraction=1.0: expected a share above 0",
    ),
    ("--data.mask_fraction=0.2", "data.mask_fraction=0.2: expected data.objective=masked with it"),
    ("--data.objective=masked --data.vocab_size=258", "data.vocab_size=258: expected at least 259"),
    ("--model.position=coupled", "model.position='coupled': expected data.task"),
]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the module, which is not on the path of imports."""
    name = f"lab_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(LAB)
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('no luck\\ntoday')\n")
    (tmp_path / f"{name}_leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return name


@pytest.mark.one_in(4)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_a_path_to_no_such_class_is_named(
    axis: str, path: str, expected: str, lab: str, fit: list[str], refused: Refused
) -> None:
    line = refused(*fit, f"--model.{axis}={path.replace('LAB', lab)}")
    assert line.startswith(f"lightning-metatok: error: model.{axis}={path.replace('LAB', lab)}: ")
    assert expected in line


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("options", "expected"), MORE)
def test_what_does_not_go_together_is_named(
    options: str, expected: str, lab: str, fit: list[str], refused: Refused
) -> None:
    assert expected in refused(*fit, *options.replace("LAB", lab).split())


def test_a_name_of_nothing_is_told_the_names(fit: list[str], refused: Refused) -> None:
    for axis in AXES:
        assert f"model.{axis}=''" in refused(*fit, f"--model.{axis}=")
