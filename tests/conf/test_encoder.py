"""conf/omninet_mlm.yaml goes on bit for bit, is tested, and says in one line what has no meaning for it."""

from pathlib import Path

import pytest
import torch

from tests.conf.test_conf import CONF, SMALL
from tests.conf.test_every_arm import weights
from tests.system.helpers import lines, run, succeed


@pytest.fixture(scope="module")
def options(corpus: Path) -> list[str]:
    """Four steps of it, with meta-tokens and documents that do not see each other."""
    more = ["--data.meta_fraction=0.1", "--data.separate_documents=true", "--model.optimizer.decay_steps=4"]
    return [f"--config={CONF / 'omninet_mlm.yaml'}", *SMALL, *more, f"--data.corpus={corpus}"]


@pytest.fixture(scope="module")
def parts(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has stopped after two steps."""
    folder = tmp_path_factory.mktemp("encoder") / "parts"
    succeed("fit", *options, f"--run_dir={folder}", "--trainer.max_steps=2")
    return folder


@pytest.mark.slow
def test_it_goes_on_bit_for_bit(options: list[str], tmp_path: Path) -> None:
    succeed("fit", *options, f"--run_dir={tmp_path / 'whole'}", "--trainer.max_steps=4")
    for steps in (2, 4):
        torch.manual_seed(steps)  # what another process left in the generator must not matter
        more = f"--run_dir={tmp_path / 'parts'}", "--ckpt_path=auto", f"--trainer.max_steps={steps}"
        succeed("fit", *options, *more)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert [name for name, weight in whole.items() if not torch.equal(weight, resumed[name])] == []


def test_its_losses_are_of_hidden_tokens_and_not_bits_per_byte(options: list[str], parts: Path) -> None:
    named = {name for line in lines(parts) for name in line}
    assert {"loss/train", "loss/val", "ablation/kept_1x"} <= named
    assert [name for name in named if "bits_per_byte" in name or "bigram" in name] == []
    checkpoint = parts / "checkpoints" / "last.ckpt"
    out = succeed("test", *options, f"--run_dir={parts}", f"--ckpt_path={checkpoint}")
    assert "nats per hidden token" in out


def test_what_asks_for_a_next_token_is_refused_in_one_line(options: list[str], parts: Path, tmp_path: Path) -> None:
    checkpoint, text = parts / "checkpoints" / "last.ckpt", tmp_path / "text.txt"
    text.write_text("the old miller found the lantern. " * 99)
    for command in (
        ["generate", "--ckpt_path", checkpoint, "--prompt", "the old miller"],
        ["evaluate", "--ckpt_path", checkpoint, "--text", text],
        ["export", "--ckpt_path", checkpoint, "--to", tmp_path / "out"],
        ["probe", *options, f"--run_dir={parts}", f"--ckpt_path={checkpoint}"],
        ["fit", *options, f"--run_dir={tmp_path}/run", "--evaluate.tasks=[lambada]"],
        ["estimate", f"--config={CONF / 'omninet_mlm.yaml'}", "--data.objective=next", "--data.mask_fraction=null"],
    ):
        outcome = run(*command)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert "model.pattern='bidirectional' cannot predict the next token" in outcome.err
