"""A task of another package is its dotted path: no file of this one knows it."""

import importlib
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.lit import TaskDataModule
from lightning_metatok.tasks import TASKS, build
from lightning_metatok.tasks.curriculum import read_phases

ECHO = '''
from dataclasses import dataclass
from typing import ClassVar

from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.lexicon import CLOSE, OPEN
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Echo(Task):
    """Say the last of some numbers again."""

    name: ClassVar[str] = "echo"
    size_field: ClassVar[str] = "n_words"
    default_size: ClassVar[tuple[int, int]] = (2, 4)
    placements: ClassVar[tuple[str, ...]] = ("every", "none")
    phrases: ClassVar[dict] = {"question": ("?", "\\nQ:")}
    n_words: tuple[int, int] | None = None
    shift: ClassVar[int] = SHIFT

    def draft(self, draws, size_n):
        number_nW = draws.integers("numbers", 0, 99, int(size_n.max()))
        draft = Draft(draws.n)
        for word in range(number_nW.shape[1]):
            draft.put(OPEN, where=word < size_n)
            draft.put(self.lexicon.numbers[number_nW[:, word]], where=word < size_n)
            draft.put(CLOSE, where=word < size_n)
        draft.end_body()
        draft.put(self.lexicon.phrase["question"])
        last_n = number_nW[range(draws.n), size_n - 1]
        draft.put(self.lexicon.numbers[last_n + self.shift], answer=True)
        draft.content(number_nW)
        return draft
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the current folder, which is not on the path of imports."""
    folder = tmp_path / "my_lab"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "echo.py").write_text(ECHO.replace("SHIFT", "0"))
    monkeypatch.chdir(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_a_task_of_another_package_is_built_trained_on_and_has_its_own_options(lab: Path) -> None:
    assert "echo" not in TASKS
    task = build("my_lab.echo.Echo", placement="every", n_words=(3, 3))
    assert task.text(task.examples(1, 0)[0]).count("<|meta|>") == 6
    given = {"validation_examples": 8, "test_examples": 8, "cache_dir": str(lab / "cache"), "batch_size": 4}
    data = TaskDataModule("my_lab.echo.Echo", {"n_words": [2, 3]}, "every", train_examples=None, **given)
    data.setup("fit")
    assert data.target.name == "echo"
    assert (data._validation().slices["length"] > 0).all()
    with pytest.raises(UserError, match=r"^data\.meta_placement=hint: expected one of every, none"):
        TaskDataModule("my_lab.echo.Echo", meta_placement="hint")
    with pytest.raises(UserError, match=r"n_word: my_lab\.echo\.Echo has no such option; did you mean 'n_words'\?"):
        build("my_lab.echo.Echo", n_word=(2, 3))


def test_a_phase_may_be_a_task_of_another_package(lab: Path) -> None:
    phases = [{"task": "my_lab.echo.Echo", "steps": 3}, {}]
    assert read_phases(phases)[0].task == "my_lab.echo.Echo"
    with pytest.raises(UserError, match=r"^data\.curriculum\[0\]\.task=my_lab\.echo\.Eco: .*did you mean 'Echo'\?"):
        read_phases([{"task": "my_lab.echo.Eco", "steps": 3}, {}])


def test_prompts_of_a_class_that_was_changed_are_made_anew(lab: Path) -> None:
    given = {"validation_examples": 8, "test_examples": 8, "cache_dir": str(lab / "cache"), "train_examples": None}

    def answers() -> list[int]:
        data = TaskDataModule("my_lab.echo.Echo", {}, "every", **given)
        data.setup("validate")
        held_out = data._validation()
        return [int(held_out[i].answer[0]) for i in range(8)]

    before = answers()
    assert answers() == before
    (lab / "echo.py").write_text(ECHO.replace("SHIFT", "20"))
    importlib.invalidate_caches()
    linecache.clearcache()
    for name in ("my_lab.echo", "my_lab"):
        del sys.modules[name]
    assert answers() == [id + 20 for id in before]


def test_what_is_no_task_is_refused_in_one_line(lab: Path) -> None:
    for name, expected in (
        ("my_lab.echo.Draft", "expected a class that derives from lightning_metatok.tasks.task.Task"),
        ("my_lab.eco.Echo", "my_lab.eco cannot be imported"),
    ):
        with pytest.raises(UserError, match=expected) as refused:
            TaskDataModule(name)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"data.task={name}: ")


def test_its_questions_may_have_a_mark(lab: Path) -> None:
    task = build("my_lab.echo.Echo", placement="every", question_mark="before_answer")
    prompts = task.examples(4, 0)
    for text in (task.text(prompts[i]).split() for i in range(4)):
        assert text[-3:-1] == ["?", "<|meta|>"]
