"""A tokenizer.json that knows no <|meta|> trains in one go, and the model has as many ids as it."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_metatok.cli import main
from lightning_metatok.cli.vocabulary import with_vocabulary
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.load import load_model
from lightning_metatok.yaml_files import followed
from tests.data.foreign import byte_level
from tests.system.conftest import corpus, debug  # noqa: F401  (fixtures)
from tests.system.helpers import run, succeed

SHORT = (
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--bigram.enabled=false",
    "--ablation.multiples=[1]",
    "--ablation.windows=1",
)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """400 ids, those of a text without <|meta|>; GPT-2's end of text."""
    content = json.loads(byte_level().to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|meta|>"]
    content["model"]["vocab"]["unusedunusedunused"] = content["model"]["vocab"].pop("<|meta|>")
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    path = tmp_path / "given.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def fit(debug: list[str], given: Path, tmp_path: Path) -> list[str]:  # noqa: F811
    return ["fit", *debug, *SHORT, f"--run_dir={tmp_path / 'run'}", f"--data.tokenizer={given}"]


def sizes(folder: Path) -> tuple[int, int]:
    config = followed(yaml.safe_load((folder / "config.yaml").read_text()))
    return config["model"]["vocab_size"], config["data"]["vocab_size"]


@pytest.mark.slow
def test_meta_is_added_and_the_vocabulary_follows_both_said_in_a_line(
    fit: list[str], given: Path, tmp_path: Path
) -> None:
    out = succeed(*fit)
    assert out.startswith(f"data.tokenizer={given}: <|meta|> (id 400) added; model.vocab_size=401 follows\n")
    folder = tmp_path / "run"
    checkpoint = folder / "checkpoints" / "last.ckpt"
    model, carried = load_model(checkpoint)
    assert model.embedding.num_embeddings == carried.vocab_size == 401
    trained_with = MetaTokenizer.from_file(given, add_meta=True)
    saved = MetaTokenizer.from_file(folder / "tokenizer.json")
    assert carried.fingerprint() == saved.fingerprint() == trained_with.fingerprint()
    assert "val loss" in succeed("validate", f"--ckpt_path={checkpoint}")
    assert succeed("generate", f"--ckpt_path={checkpoint}", "--prompt=the old miller", "--max_new_tokens=2")
    # A longer run, and one from the folder's own tokenizer, are of the same size.
    longer = [*fit, "--trainer.max_steps=4", f"--ckpt_path={checkpoint}", "--allow_changed=[trainer.max_steps]"]
    assert "(id 400) added; model.vocab_size=401 follows" in succeed(*longer, "--model.optimizer.decay_steps=2")
    own = [*fit, f"--run_dir={tmp_path / 'own'}", f"--data.tokenizer={folder / 'tokenizer.json'}"]
    assert succeed(*own).startswith(f"data.tokenizer={folder / 'tokenizer.json'}: model.vocab_size=401 follows\n")


@pytest.mark.parametrize("option", ["--model.vocab_size=400", "--data.vocab_size=400"])
def test_a_size_that_the_user_set_and_that_is_too_small_is_refused(fit: list[str], option: str, tmp_path: Path) -> None:
    outcome = run(*fit, option)
    assert outcome.code == 2
    assert outcome.err == (
        "lightning-metatok: error: model.vocab_size=400: expected at least 401, the ids of the tokenizer\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--model.vocab_size=448", "--data.vocab_size=448"])
def test_a_size_that_the_user_set_stays(fit: list[str], option: str, tmp_path: Path) -> None:
    out = succeed(*fit, option)
    assert "follows" not in out
    assert "401 ids (<|meta|> added)\n" in out
    assert sizes(tmp_path / "run")[0] == 448


def test_a_configuration_can_be_printed_as_yaml(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*fit, "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["vocab_size"] == 401


def test_a_model_of_mostly_unused_rows_is_not_built(fit: list[str], given: Path) -> None:
    content = json.loads(given.read_text())
    content["model"]["vocab"]["unusedunusedunused"] = 1 << 23
    given.write_text(json.dumps(content))
    assert f"expected at least {(1 << 23) + 1}, the ids of the tokenizer" in run(*fit).err


def test_symbols_of_a_task_read_no_tokenizer(repository: Path) -> None:
    argv = [f"--config={repository / 'conf' / 'task' / 'list_recall.yaml'}", "--data.tokenizer=nowhere.json"]
    for symbols in ("--data.task_options.rendering=symbols", "--data.task_options={rendering: symbols}"):
        assert with_vocabulary("fit", [*argv, symbols]) == [*argv, symbols]
    for text in ([], ["--data.task_options.rendering=text"], ["--data.task_options={rendering: text}"]):
        with pytest.raises(UserError, match=r"data\.tokenizer='nowhere\.json': no such file"):
            with_vocabulary("fit", [*argv, *text])
