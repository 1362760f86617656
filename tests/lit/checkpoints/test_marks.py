"""A prompt gets the meta-tokens that its model was trained with, by the rule that the checkpoint carries."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.marks import KEY, Marks, rule_for
from tests.system.helpers import TINY_TASK, run, succeed, write_corpus

CONF = Path(__file__).resolve().parents[3] / "conf"
PROMPT = "the old miller found the lantern in the valley."
META = "<|meta|>"
SMALL = ["--data.vocab_size=300", "--data.block_size=64", "--trainer.max_steps=2", "--trainer.val_check_interval=2"]
SHORT = ["--max_new_tokens=1", "--temperature=0", "--show_meta"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a plain model, one with every third token a mark, and one of a task."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = write_corpus(folder / "stories.jsonl", count=40)
    debug, arms = f"--config={CONF / 'debug.yaml'}", CONF / "arm"
    text = ["fit", debug, *SMALL, f"--data.corpus={corpus}", "--ablation.windows=1"]
    succeed(*text, f"--config={arms / 'plain.yaml'}", f"--run_dir={folder}/plain")
    marked = ["--data.meta_fraction=0.33", "--data.meta_placement=periodic"]
    succeed(*text, *marked, f"--run_dir={folder}/periodic")
    nano = f"--config={CONF / 'task' / 'list_recall_nano.yaml'}"
    succeed("fit", nano, *TINY_TASK, "--trainer.precision=32-true", f"--run_dir={folder}/task")
    return {name: folder / name / "checkpoints" / "last.ckpt" for name in ("plain", "periodic", "task")}


def generated(path: Path, *options: str, prompt: str = PROMPT) -> tuple[str, str]:
    """What `generate` writes to stdout and stderr."""
    outcome = run("generate", f"--ckpt_path={path}", f"--prompt={prompt}", *SHORT, *options)
    assert outcome.code == 0, outcome
    return outcome.out, outcome.err


def changed(path: Path, folder: Path, *without: str, **instead: Any) -> Path:
    """A copy of a checkpoint, without some of what it carries."""
    checkpoint = torch.load(path, weights_only=True)
    kept = {**{key: value for key, value in checkpoint.items() if key not in without}, **instead}
    if KEY in without and "callbacks" in kept:
        kept["callbacks"] = {name: one for name, one in kept["callbacks"].items() if name != "RunState"}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(kept, folder / "old.ckpt")
    return folder / "old.ckpt"


def test_a_plain_model_gets_no_mark_that_it_never_met(checkpoints: dict[str, Path]) -> None:
    out, said = generated(checkpoints["plain"])
    assert (META in out, said) == (False, "")


def test_marks_are_as_many_and_where_they_were_in_training(checkpoints: dict[str, Path]) -> None:
    out, said = generated(checkpoints["periodic"])
    pieces = out.split(META)
    assert said == ""
    assert len(pieces) > 5
    lengths = [len(piece) for piece in pieces[1:-1]]
    assert max(lengths) < 12, "evenly spaced"
    assert generated(checkpoints["periodic"], "--seed=5")[0] == out, "periodic places do not hang on a seed"
    assert generated(checkpoints["periodic"], "--placement=random", "--seed=5")[0] != out


def test_options_say_otherwise(checkpoints: dict[str, Path]) -> None:
    assert META in generated(checkpoints["plain"], "--meta_fraction=0.2")[0]
    assert META not in generated(checkpoints["periodic"], "--meta_fraction=0")[0]


def test_marks_of_a_task_stay_where_the_prompt_has_them(checkpoints: dict[str, Path]) -> None:
    carried = MetaTokenizer.from_json(torch.load(checkpoints["task"], weights_only=True)["tokenizer"])
    word = carried.decode([carried.vocab_size - 1])
    out, said = generated(checkpoints["task"], prompt=word)
    assert META not in out
    assert said.count("\n") == 1
    assert "has data.meta_placement=hint, which no other prompt can follow" in said
    assert generated(checkpoints["task"], prompt=f"{META} {word}")[1] == ""


@pytest.mark.parametrize("name", ["plain", "periodic"])
def test_an_older_checkpoint_is_asked_for_its_configuration(
    name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = checkpoints[name]
    right = generated(path)
    # It carries its configuration for `fit` to compare; else the run folder has it.
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[KEY]
    torch.save(checkpoint, tmp_path / "alone.ckpt")
    assert generated(tmp_path / "alone.ckpt") == right
    inside = changed(path, tmp_path / "run" / "checkpoints", KEY)
    shutil.copy(path.parent.parent / "config.yaml", tmp_path / "run")
    assert generated(inside) == right


def test_where_nothing_says_it_nothing_is_guessed(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = changed(checkpoints["periodic"], tmp_path / "a" / "b", KEY)
    out, said = generated(path)
    assert META not in out
    assert said == (
        f"lightning-metatok: --ckpt_path={path} does not say where meta-tokens stood: the prompt gets none; "
        "--meta_fraction gives it some\n"
    )
    assert META in generated(path, "--meta_fraction=0.2")[0]
    refused = run("generate", f"--ckpt_path={path}", "--prompt=x", "--placement=periodic")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--placement=periodic: expected --meta_fraction beside it" in refused.err


@pytest.mark.parametrize("broken", [{"fraction": 3, "placement": "random"}, {"fraction": 0.1}, [0.1], "random", None])
def test_marks_that_are_none_are_refused_in_one_line(broken: Any, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = changed(checkpoints["plain"], tmp_path, **{KEY: broken})
    refused = run("generate", f"--ckpt_path={path}", "--prompt=x")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"{path}: marks holds " in refused.err


@pytest.mark.parametrize(
    ("marks", "given", "expected"),
    [
        (Marks(0.1, "random"), (None, None), InjectionRule(0.1, "random")),
        (Marks(0.1, "random"), (0.3, None), InjectionRule(0.3, "random")),
        (Marks(0.1, "periodic"), (0.3, None), InjectionRule(0.3, "periodic")),
        (Marks(0.2, "hint"), (None, "random"), InjectionRule(0.2, "random")),
        (Marks(0.1, "chunk_end", {"c": 5}), (None, None), InjectionRule(0.1, "chunk_end", options={"c": 5})),
        (Marks(0.2, "hint"), (None, None), None),
        (Marks(0.0, "hint"), (None, None), None),
        (Marks(0.2, "none"), (None, None), None),
        (Marks(0.1, "fixed"), (None, None), None),
        (None, (0.3, None), InjectionRule(0.3, "random")),
        (None, (None, None), None),
    ],
)
def test_the_rule_for_a_prompt(marks: Marks | None, given: tuple[Any, Any], expected: InjectionRule | None) -> None:
    assert rule_for(marks, *given)[0] == expected
    if marks is None and given[0] is None:
        with pytest.raises(UserError, match="--placement=random"):
            rule_for(marks, None, "random")
