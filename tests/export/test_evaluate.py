"""lm-eval on a live model: the numbers of its own `hf` model on the export, whatever the batch and the length."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.data import InjectionRule
from lightning_metatok.export.write import Trained, write
from lightning_metatok.lit.checkpoints.contents import TOKENIZER_KEY
from tests.export.conftest import Make
from tests.system.helpers import curve, documents, run, write_corpus

pytest.importorskip("lm_eval", reason="needs the extra eval")
pytestmark = [pytest.mark.filterwarnings("ignore")]

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from lightning_metatok.lit.harness import evaluate, find_tasks  # noqa: E402
from lightning_metatok.lit.live import LiveModel  # noqa: E402

TASK = """
task: who_found
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: [" the lantern", " three letters", " some bread"]
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
TEXTS = [text[: 150 + 60 * i] for i, text in enumerate(documents(5))]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task on local data."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"text": f"{text[:60]} found", "answer": i % 3} for i, text in enumerate(TEXTS)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "who_found.yaml").write_text(TASK.format(data=folder / "data.jsonl"))
    return folder


@pytest.fixture(scope="module")
def exported(make: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Any]:
    """A model in memory, and lm-eval's own one on its export."""
    trained = make()
    folder = tmp_path_factory.mktemp("exported") / "out"
    write(trained, folder)
    theirs = HFLM(pretrained=str(folder), device="cpu", batch_size=3, trust_remote_code=True, dtype="float32")
    return trained, theirs


def asked(kind: str) -> list[Instance]:
    """Requests of a kind: texts, or questions with several answers, empty contexts among them."""
    pairs = [(text[:80], answer) for text in TEXTS for answer in (" the", " three letters", ".\n")]
    given: list[tuple[str, ...]] = [("", "the old miller"), *pairs, (TEXTS[-1], " at the end")]
    if kind == "loglikelihood_rolling":
        given = [(text,) for text in TEXTS]
    return [Instance(kind, {}, arguments, i) for i, arguments in enumerate(given)]  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_live_model_answers_as_its_export_does(batch_size: int, exported: tuple[Trained, Any]) -> None:
    trained, theirs = exported
    live = LiveModel(trained.model, trained.tokenizer, batch_size=batch_size)
    assert live.max_length == theirs.max_length
    expected, found = (model.loglikelihood(asked("loglikelihood")) for model in (theirs, live))
    for (one, greedy), (other, also) in zip(expected, found, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
        assert greedy == also


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_whole_texts_have_the_likelihood_that_they_have_alone(batch_size: int, exported: tuple[Trained, Any]) -> None:
    trained, theirs = exported
    live = LiveModel(trained.model, trained.tokenizer, batch_size=batch_size)
    found = live.loglikelihood_rolling(asked("loglikelihood_rolling"))
    assert max(len(live.tok_encode(text)) for text in TEXTS) > 3 * live.max_length
    alone = [live.loglikelihood_rolling([request])[0] for request in asked("loglikelihood_rolling")]
    assert found == pytest.approx(alone, abs=1e-3)
    assert found == pytest.approx(theirs.loglikelihood_rolling(asked("loglikelihood_rolling")), abs=1e-3)


def test_a_task_on_local_data_has_the_same_numbers_both_ways(exported: tuple[Trained, Any], tasks: Path) -> None:
    trained, theirs = exported
    manager = find_tasks(["who_found"], tasks)
    before = torch.random.get_rng_state()
    found = evaluate(LiveModel(trained.model, trained.tokenizer), ["who_found"], manager)
    assert torch.equal(torch.random.get_rng_state(), before)
    expected = evaluate(theirs, ["who_found"], manager)
    assert [score.metric for score in found] == ["acc"]
    assert found[0].n == len(TEXTS)
    assert found[0].value == pytest.approx(expected[0].value, abs=1e-4)
    assert found[0].error == pytest.approx(expected[0].error, abs=1e-4)


def test_contexts_get_meta_tokens_by_the_rule_and_continuations_none(make: Make) -> None:
    trained = make()
    rule = InjectionRule(fraction=0.25, placement="periodic")
    live = LiveModel(trained.model, trained.tokenizer, rule=rule)
    meta_id = trained.tokenizer.meta_id
    row = live._row(range(10, 18), [20, 21, 22, 23], rule)
    assert row.count(meta_id) == 2
    assert row[-4:] == [20, 21, 22, 23]
    longest = live._row(range(10, 200), [5, 6], rule)
    assert len(longest) <= live.max_length + 1
    assert longest[-3:] == [199, 5, 6]
    with_rule, without = (
        LiveModel(trained.model, trained.tokenizer, rule=one).loglikelihood(asked("loglikelihood"))
        for one in (rule, None)
    )
    assert with_rule[0] == without[0]  # one token of context: no share of it is a whole token
    assert with_rule[1] != without[1]


def test_text_is_written_until_a_stop_string(make: Make) -> None:
    trained = make()
    live = LiveModel(trained.model, trained.tokenizer, rule=InjectionRule(fraction=0.1))
    options = {"until": [], "max_gen_toks": 12}
    ask = [Instance("generate_until", {}, (TEXTS[0][:40], options), 0)]  # type: ignore[arg-type]
    (whole,) = live.generate_until(ask)
    assert whole
    stop = whole[len(whole) // 2]
    ask = [Instance("generate_until", {}, (TEXTS[0][:40], {**options, "until": [stop]}), 0)]  # type: ignore[arg-type]
    assert live.generate_until(ask) == [whole[: whole.index(stop)]]


def test_the_verb_prints_and_writes_what_a_task_gives(tasks: Path, make: Make, tmp_path: Path) -> None:
    trained, path, output = make(), tmp_path / "x.ckpt", tmp_path / "scores.json"
    state = {f"model.{key}": value for key, value in trained.model.state_dict().items()}
    content = {"state_dict": state, "hyper_parameters": asdict(trained.model.config)}
    marks = {"fraction": 0.1, "placement": "random"}
    torch.save({**content, TOKENIZER_KEY: trained.tokenizer.to_json(), "marks": marks}, path)
    options = ("--tasks=who_found", f"--include_path={tasks}", "--limit=3")
    outcome = run("evaluate", f"--ckpt_path={path}", *options, f"--output={output}")
    assert outcome.code == 0, outcome
    assert "who_found" in outcome.out
    (score,) = json.loads(output.read_text())
    assert score["n"] == 3

    for option, why in (
        ("--tasks=,", "expected the name of at least one task"),
        ("--include_path=/nowhere", "no such folder"),
        ("--batch_size=0", "--batch_size=0: expected a positive number"),
        ("--placement=fixed", "--placement=fixed: expected one of random"),
        ("--device=nothing", "--device=nothing: "),
    ):
        refused = run("evaluate", f"--ckpt_path={path}", *options, option)
        assert refused.code == 2
        assert why in refused.err
        assert refused.err.count("\n") == 1


@pytest.mark.slow
def test_a_run_is_evaluated_every_n_steps_and_trains_as_without(tasks: Path, tmp_path: Path, repository: Path) -> None:
    corpus = write_corpus(tmp_path / "text.jsonl", count=30)
    small = ("--data.max_documents=30", "--data.block_size=32", "--data.validation_blocks=2", "--bigram.enabled=false")
    steps = ("--trainer.max_steps=4", "--trainer.val_check_interval=4", "--trainer.log_every_n_steps=1")
    start = ("fit", f"--config={repository / 'conf' / 'debug.yaml'}", f"--data.corpus={corpus}", *small, *steps)
    asked = (f"--evaluate.include_path={tasks}", "--evaluate.every=2")
    runs = {"with": ("--evaluate.tasks=[who_found]", *asked), "without": ()}
    for name, options in runs.items():
        outcome = run(*start, "--ablation.multiples=[1]", f"--run_dir={tmp_path / name}", *options)
        assert outcome.code == 0, outcome
    assert [step for step, _ in curve(tmp_path / "with", "evaluate/who_found/acc")] == [2, 4]
    assert curve(tmp_path / "with", "loss/train") == curve(tmp_path / "without", "loss/train")
