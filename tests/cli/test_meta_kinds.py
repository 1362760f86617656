"""`data.meta_kinds` through the command line: a run, going on with it, generating from it, and what is refused."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from lightning_metatok.cli import main
from lightning_metatok.data import InjectionRule
from lightning_metatok.data.kinds import is_meta, next_ids
from lightning_metatok.data.while_writing import WhileWriting
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.lit.checkpoints.load import load_trained
from lightning_metatok.model.generate import stream
from lightning_metatok.model.sampling import Sampling
from lightning_metatok.report.runs import conditions, read_run
from lightning_metatok.yaml_files import followed
from tests.system.conftest import corpus, debug, quick  # noqa: F401  (fixtures)
from tests.system.helpers import run, succeed

Options = list[str]
THREE = [
    "--data.meta_kinds=3",
    "--data.meta_placement=chunk_end",
    "--data.meta_placement_options={c: 8, n: 3}",
    "--model.pattern=chunk_window",
    "--model.pattern_options.back=1",
    "--model.mechanism=own_qkv",
]
"""KSA with three summary tokens a chunk."""


@pytest.fixture(scope="module")
def fit(quick: Options) -> Options:  # noqa: F811
    short = ("--trainer.max_steps=2", "--trainer.val_check_interval=1", "--sample.max_new_tokens=1")
    return ["fit", *quick, *short, "--model.optimizer.decay_steps=2", "--checkpoint.keep_last=2"]


@pytest.fixture(scope="module")
def folder(fit: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "three"
    assert " 514 ids (<|meta_1|> and <|meta_2|> added)" in succeed(*fit, *THREE, f"--run_dir={folder}")
    return folder


def test_the_vocabulary_has_room_behind_that_of_one_kind(folder: Path) -> None:
    config = followed(yaml.safe_load((folder / "config.yaml").read_text()))
    assert (config["data"]["vocab_size"], config["data"]["meta_kinds"]) == (512, 3)
    assert (config["model"]["vocab_size"], config["model"]["kinds_from"]) == (514, 512)
    _, tokenizer, _ = load_trained(folder / "checkpoints" / "last.ckpt")
    assert tokenizer.meta_ids == (1, 512, 513)


def test_a_run_that_goes_on_ends_with_the_same_weights(fit: Options, folder: Path, tmp_path: Path) -> None:
    first = next(
        path for path in (folder / "checkpoints").glob("*.ckpt") if read_state(path, key="x")["global_step"] == 1
    )
    succeed(*fit, *THREE, f"--run_dir={tmp_path / 'on'}", f"--ckpt_path={first}")
    one, other = (
        read_state(at / "checkpoints" / "last.ckpt", key="x")["state_dict"] for at in (folder, tmp_path / "on")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_written_is_what_a_full_pass_likes_best(folder: Path) -> None:
    model, tokenizer, _ = load_trained(folder / "checkpoints" / "last.ckpt")
    rule, ids = InjectionRule(placement="chunk_end", options={"c": 8, "n": 3}), tokenizer.meta_ids
    source_1T = torch.tensor([tokenizer.encode("the old miller sees a fish, and the cat")])
    prompt = rule.in_prompt(source_1T, meta_id=ids, seed=0, index=0)
    marks = WhileWriting(rule, source_1T.shape[1], int(prompt.meta_mask_BT.sum()), seed=0)
    row = prompt.tokens_BT[0].tolist()

    def extra_next(next_1: torch.Tensor) -> list[int]:
        before = marks.n_extra
        new = next_ids(ids, before, marks.take(int(next_1)))
        row.extend([int(next_1), *new])
        return new

    options = {"sampling": Sampling(0.0), "forbidden_ids": ids, "max_new_tokens": 20, "extra_next": extra_next}
    assert len(list(stream(model, prompt.tokens_BT, prompt.meta_mask_BT, **options))) == 20
    tokens_1T = torch.tensor([row])
    mask_1T = is_meta(tokens_1T, ids)
    assert tokens_1T[mask_1T].tolist() == [ids[i % 3] for i in range(marks.n_extra)]
    assert marks.n_extra == 3 * ((source_1T.shape[1] + 20) // 8)
    with torch.no_grad():
        logits_TV = model(tokens_1T, mask_1T)[0].index_fill(1, torch.tensor(ids), -torch.inf)
    written_T = ~mask_1T[0]
    written_T[: prompt.tokens_BT.shape[1]] = False
    likeliest_T = logits_TV.argmax(dim=1).roll(1)
    assert torch.equal(likeliest_T[written_T], tokens_1T[0, written_T])


def test_generate_shows_kinds_only_where_it_is_asked_to(folder: Path) -> None:
    options = [
        f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}",
        "--prompt=the old miller sees",
        "--max_new_tokens=20",
    ]
    assert "<|meta" not in succeed("generate", *options)
    shown = re.findall(r"<\|meta[^>]*>", succeed("generate", *options, "--show_meta"))
    assert shown[:6] == ["<|meta|>", "<|meta_1|>", "<|meta_2|>"] * 2


KINDS, VOCABULARY = "--data.meta_kinds={}", "--model.vocab_size=513"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([KINDS.format(0)], "data.meta_kinds=0: expected 1 or more"),
        ([KINDS.format(7)], "data.meta_kinds=7: expected up to 6, the meta-tokens of a block"),
        ([KINDS.format(2), "--data.meta_fraction=0"], "data.meta_kinds=2: expected 1, as a block has no meta-tokens"),
        ([KINDS.format(3), VOCABULARY], "model.vocab_size=513: expected at least 514, the ids of the tokenizer"),
        (["--model.kinds_from=600"], "model.kinds_from=600: expected an id below vocab_size=512"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(fit: Options, options: Options, said: str, tmp_path: Path) -> None:
    outcome = run(*fit, *options, f"--run_dir={tmp_path / 'run'}")
    assert (outcome.code, outcome.err) == (2, f"lightning-metatok: error: {said}\n")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_other_kinds_is_refused(fit: Options, folder: Path, tmp_path: Path) -> None:
    checkpoint = folder / "checkpoints" / "last.ckpt"
    where, wide = f"--run_dir={tmp_path / 'run'}", ["--model.vocab_size=514", "--model.kinds_from=512"]
    outcome = run(*fit, *THREE[1:], *wide, where, f"--model.init_from={checkpoint}")
    assert outcome.code == 2
    assert (
        outcome.err
        == "lightning-metatok: error: data.meta_kinds=1: the checkpoint has 3 kinds of meta-tokens; expected 3\n"
    )
    outcome = run(*fit, where, f"--data.tokenizer={folder / 'tokenizer.json'}")
    assert outcome.code == 2
    assert outcome.err.endswith("tokenizer.json' has 3 kinds of meta-tokens; expected 3\n")


def test_the_tokenizer_of_the_run_gives_the_same_sizes(
    fit: Options, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*fit, *THREE, f"--data.tokenizer={folder / 'tokenizer.json'}", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["data"]["vocab_size"], config["model"]["vocab_size"]) == (512, 514)
    assert config["model"]["kinds_from"] == 512


@pytest.mark.slow
def test_runs_of_different_kinds_may_be_compared(fit: Options, folder: Path, tmp_path: Path) -> None:
    succeed(*fit, *THREE[1:], f"--run_dir={tmp_path / 'one'}")
    one, three = conditions([read_run(tmp_path / "one"), read_run(folder)])
    assert "meta_kinds=1" in one.label
    assert "meta_kinds=3" in three.label
