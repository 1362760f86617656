"""Whatever is in a file, reading it ends in a result or in one clear line. `make fuzz` looks longer."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_metatok.data import InjectionRule, remove_meta
from lightning_metatok.data.json_documents import json_documents
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.io import fault_of, read_manifest
from lightning_metatok.yaml_files import read_config

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)
words = st.sampled_from(
    ["a", ": ", "\n", "  ", "- ", "[", "]", "{", "}", "&x ", "*x", "!!int ", "'", '"', "|", "<<", "%", "\t"]
)
yaml_like = st.lists(words).map("".join).map(str.encode) | st.binary() | values.map(lambda x: json.dumps(x).encode())
lines = st.lists(
    st.binary()
    | values.map(lambda x: json.dumps(x).encode())
    | st.text().map(lambda x: json.dumps({"text": x}).encode())
)


@pytest.mark.fuzz
@in_tmp_path
@given(yaml_like)
def test_a_configuration_is_a_mapping_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    found: object = None
    try:
        found = read_config(str(tmp_path / "x.yaml"))
    except UserError as error:
        found = str(error)
    assert "\n" not in found if isinstance(found, str) else all(isinstance(key, str) for key in found)  # type: ignore[attr-defined]


@pytest.mark.fuzz
@in_tmp_path
@given(lines, st.sampled_from(["x.jsonl", "x.json", "x.jsonl.gz"]))
def test_json_is_text_or_refused(tmp_path: Path, content: list[bytes], name: str) -> None:
    (tmp_path / name).write_bytes(b"\n".join(content))
    said = str(tmp_path / name)
    try:
        for document in json_documents(tmp_path / name, "text"):
            document.encode()
    except UserError as error:
        said = str(error)
    assert str(tmp_path / name) in said


@pytest.mark.fuzz
@given(
    st.integers(2, 64), st.floats(0, 0.5), st.sampled_from(["random", "periodic", "punctuation"]),
    st.sampled_from(["within", "grow"]), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40),
)  # fmt: skip
def test_what_is_injected_can_be_removed(
    length: int, fraction: float, placement: str, grows: str, seed: int, index: int
) -> None:
    rule = InjectionRule(fraction, placement, grows)  # type: ignore[arg-type]
    source_BS = torch.arange(2, 2 + 2 * length).view(2, length)
    made = rule.apply(source_BS, block_length=length, meta_id=1, seed=seed, index=index, after_ids=(3, 5))
    assert made.tokens_BT.shape == (2, rule.total_length(length))
    assert int(made.meta_mask_BT.sum()) == 2 * rule.n_meta(length)
    kept = remove_meta(made.tokens_BT, made.meta_mask_BT)
    assert torch.equal(kept, source_BS[:, : rule.source_length(length)])


files = st.dictionaries(
    st.text() | st.just("step-1.ckpt"), values | st.fixed_dictionaries({"size": values, "sha256": values})
)
manifests = values | st.fixed_dictionaries({"step": values, "files": files | values}, optional={"loss": values})


@pytest.mark.fuzz
@in_tmp_path
@given(st.binary() | manifests.map(lambda x: json.dumps(x).encode()))
def test_a_manifest_is_sound_or_the_checkpoint_does_not_count(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "step-1.json").write_bytes(content)
    assert fault_of(tmp_path / "step-1.ckpt") is not None, "there is no such file"
    with contextlib.suppress(ValueError):
        assert type(read_manifest(tmp_path / "step-1.ckpt")["step"]) is int
