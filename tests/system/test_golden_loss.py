"""The loss of fifty steps of a tiny model, committed: a change that should not change the numbers does not.

Every option that matters is written down here, so that the files under conf/ may change. The text is made by the
grammar in `helpers`. When a change is meant to alter the losses, write them anew and say why in the commit:

    python -m tests.system.test_golden_loss
"""

import tempfile
from pathlib import Path

import pytest

from tests.system.helpers import curve, succeed, write_corpus

GOLDEN = Path(__file__).with_name("golden_loss.txt")
STEPS = 50
OPTIONS = [
    "--seed_everything=11",
    "--model.n_layers=2",
    "--model.n_heads=2",
    "--model.d_model=32",
    "--model.vocab_size=320",
    "--model.position=rotary",
    "--model.max_positions=48",
    "--model.dropout=0",
    "--model.optimizer.lr=1e-2",
    "--model.optimizer.min_lr=1e-3",
    "--model.optimizer.warmup_steps=5",
    "--model.optimizer.decay_steps=50",
    "--model.optimizer.weight_decay=0.1",
    "--data.vocab_size=320",
    "--data.block_size=48",
    "--data.batch_size=4",
    "--data.meta_fraction=0.1",
    "--data.meta_placement=random",
    "--data.meta_length=grow",
    "--data.seed=11",
    "--data.num_workers=0",
    "--trainer.precision=32-true",
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=50",
    "--trainer.val_check_interval=50",
    "--trainer.gradient_clip_val=1.0",
    "--trainer.log_every_n_steps=1",
    "--data.validation_blocks=1",
    "--bigram.enabled=false",
    "--ablation.multiples=[1]",
    "--sample.max_new_tokens=1",
]


def measure(folder: Path) -> list[float]:
    """Train, and return the loss of every step."""
    corpus = write_corpus(folder / "text.jsonl", count=40)
    succeed("fit", *OPTIONS, f"--data.corpus={corpus}", f"--run_dir={folder / 'run'}")
    steps, losses = zip(*curve(folder / "run", "loss/train"), strict=True)
    assert list(steps) == list(range(1, STEPS + 1))
    return list(losses)


def test_losses_are_the_committed_ones_and_repeat_bit_for_bit(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    losses = measure(first)
    golden = [float(line) for line in GOLDEN.read_text().split()]
    # The last bits of float32 depend on the CPU and the build of torch, and fifty steps make them larger.
    assert losses == pytest.approx(golden, rel=1e-4)
    assert measure(second) == losses
    assert golden[-1] < golden[0] - 1.5  # nats: it is a run that learns


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text("".join(f"{loss!r}\n" for loss in measure(Path(scratch))))
