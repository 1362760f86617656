"""docs/tools.md runs as it is written: commands, then code, in one folder; nnsight reads what a hook reads."""

import contextlib
import io
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.docs.test_extend import FENCED
from tests.system.helpers import succeed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tools
def test_the_page_runs_and_prints_what_it_shows(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nnsight", reason="nnsight is not installed: extra `tools`")
    pytest.importorskip("transformer_lens", reason="TransformerLens is not installed: extra `tools`")
    (tmp_path / "conf").symlink_to(repository / "conf")
    monkeypatch.chdir(tmp_path)
    printed, names = io.StringIO(), dict[str, Any]({"__name__": "tools"})
    blocks = FENCED.findall((repository / "docs" / "tools.md").read_text(encoding="utf-8"))
    for number, (kind, text) in enumerate(blocks):
        if kind == "bash":
            for line in text.splitlines():
                succeed(*shlex.split(line)[1:])
        elif kind == "python":
            script = tmp_path / f"block_{number}.py"  # nnsight reads the source of the code that calls it
            script.write_text(text, encoding="utf-8")
            with contextlib.redirect_stdout(printed):
                exec(compile(text, str(script), "exec"), names)
    assert printed.getvalue() == "".join(text for kind, text in blocks if not kind)

    model, seen = names["model"], []
    hook = model.blocks[0].register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        logits_BTV = model(names["tokens_BT"], names["meta_mask_BT"])
    hook.remove()
    assert torch.equal(names["behind_block_BTD"], seen[0])
    assert torch.equal(names["logits_BTV"], logits_BTV)
