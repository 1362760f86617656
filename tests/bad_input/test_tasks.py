"""Tasks whose options cannot work: refused with their key before a prompt is made."""

from pathlib import Path

import pytest

from tests.bad_input.conftest import Refused

OPTIONS = [
    ("--data.task=list_recal", "data.task='list_recal': expected one of"),
    ("--data.meta_placement=hnt", "data.meta_placement=hnt: expected one of hint"),
    ("--data.task_options={bin: [1, 4]}", "do not fit the bin, more than 1 and at most 4 tokens"),
    ("--data.task_options={bin: [-5, 4]}", "data.task_options.bin=[-5, 4]: expected two integers"),
    ("--data.task_options={bin: [9, 4]}", "data.task_options.bin=[9, 4]: expected two integers"),
    ("--data.task_options={level: hrd}", "data.task_options.level=hrd: expected one of"),
    ("--data.task_options={list_length: [3, 999]}", "data.task_options.list_length=[3, 999]: expected two integers"),
    ("--data.task_options={list_length: [-1, 3]}", "data.task_options.list_length=[-1, 3]: expected two integers"),
    ("--data.task_options={pool: 2, list_length: [3, 8]}", "data.task_options.list_length=[3, 8]: expected two"),
    ("--data.task_options={n_lists: [2, 100000]}", "data.task_options.n_lists=[2, 100000]: expected two integers"),
    ("--data.task_options={n_queries: 0}", "data.task_options.n_queries=0: expected an integer from 1"),
    (
        "--data.task_options={question_mark: after_keys}",
        "question_mark=after_keys: expected one of none, before",
    ),
    ("--data.task_options={marks_count: often}", "data.task_options.marks_count=often: expected true or false"),
    ("--data.task_options={n_list: [1, 2]}", "list_recall has no such option; did you mean 'n_lists'?"),
    ("--data.task_options={symbols: [1, 2]}", "data.task_options.symbols=[1, 2]: expected three integers"),
    ("--data.train_examples=0", "data.train_examples=0: expected a positive number"),
    ("--data.curriculum=[{}, {}]", "data.curriculum[0]: expected steps or accuracy"),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("option", "expected"), OPTIONS)
def test_an_option_of_a_task_that_cannot_work_is_named(
    option: str, expected: str, repository: Path, refused: Refused, tmp_path: Path
) -> None:
    config = repository / "conf" / "task" / "list_recall_nano.yaml"
    assert expected in refused("fit", f"--config={config}", option, f"--run_dir={tmp_path / 'run'}")
