"""The page in HTML and Markdown: well formed, complete on its own, whole or not at all."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.report.dashboard import write_dashboard
from lightning_metatok.report.html import html
from lightning_metatok.report.markdown import markdown, table
from lightning_metatok.report.page import Heading, Lead, Listing, Page, Paragraph, Picture, Table
from lightning_metatok.report.sections import report
from lightning_metatok.report.study import Study, of_runs
from lightning_metatok.report.write import write
from tests.report.studies import Values, ablation, answers, sweep
from tests.written_runs import EXACT, write_run

VOID = {"meta", "link", "img", "br"}


class Checked(HTMLParser):
    """Every element is closed, in order; counts elements and collects what is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two arms, three lengths, two seeds."""
    values: Values = {
        (arm,): {
            seed: answers(x1=high + seed / 50, x2=0.3 + seed / 40, x4=0.1 + seed / 70) | {EXACT: high}
            for seed in (1, 2)
        }
        for arm, high in (("plain", 0.5), ("meta", 0.7))
    }
    return sweep(tmp_path / "runs", ["arm"], values, states={"waiting": 2}, metrics=("answers/full_1x", "loss/val"))


def test_html_is_well_formed_and_fetches_nothing(study: Study) -> None:
    text = html(report(study))
    page = Checked(text)
    assert page.seen.count("img") == 4
    assert page.sources
    assert all(source.startswith("data:") for source in page.sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text.replace("http-equiv", ""))


def test_the_finding_and_its_figure_come_first_and_what_is_left_out_is_counted(study: Study) -> None:
    page = report(study)
    assert [type(block).__name__ for block in page.blocks[:3]] == ["Lead", "Picture", "Paragraph"]
    headings = [block.text for block in page.blocks if isinstance(block, Heading)]
    assert headings == [
        *("How sure", "Solved or not", "Every condition", "While learning", "Cost", "Environment", "Configurations"),
    ]
    text = markdown(page, "pictures")
    assert "**2 of 6 runs are left out** because they are not finished (2 waiting)." in text
    assert "| meta | 1,000 | 2 | 0.730 (0.720 to 0.740) |" in text


def test_every_result_says_what_was_trained(study: Study) -> None:
    about = "1,000 parameters, 2,000 source tokens, 2 seeds each"
    page = report(study)
    end = next(i for i, block in enumerate(page.blocks) if isinstance(block, Heading) and block.text == "Environment")
    shown = [block for block in page.blocks[:end] if isinstance(block, Table | Picture)]
    assert len(shown) == 8
    assert all(about in block.caption for block in shown)
    assert html(page).count(about) >= 8
    assert markdown(page, "pictures").count(about) >= 8


def test_a_schedule_that_had_not_ended_is_said(tmp_path: Path) -> None:
    slow = {"model.optimizer": {"decay_steps": 480, "lr": 1e-3, "min_lr": 1e-4}}
    flat = {"model.optimizer": {"decay_steps": 480, "lr": 1e-3, "min_lr": 1e-3}}  # nothing decays
    done = {"model.optimizer": {"decay_steps": 20, "lr": 1e-3, "min_lr": 1e-4}}
    for number, (config, said) in enumerate(((slow, True), (flat, False), (done, False))):
        run = write_run(tmp_path / str(number), values=[0.1, 0.2], config=config)
        text = markdown(report(of_runs([run], "runs")), "pictures")
        assert ("**The learning-rate schedule had not ended: meta (step 20 of 480).**" in text) == said


def test_the_environment_is_what_the_runs_say(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / arm, arm=arm, values=[0.5]) for arm in ("plain", "meta")]
    (folders[0] / "environment.json").write_text('{"PyTorch": "2.13.0", "processor": "a GPU"}')
    (folders[1] / "environment.json").write_text('{"PyTorch": "2.14.0", "processor": "a GPU"}')
    text = markdown(report(of_runs(folders, "runs")), "pictures")
    assert "| PyTorch | 2.13.0, 2.14.0 |" in text
    assert "| processor | a GPU |" in text
    (folders[1] / "environment.json").write_text("[]")
    with pytest.raises(UserError, match=r"environment\.json: expected a JSON object"):
        of_runs(folders, "runs")


def test_a_seed_that_diverged_does_not_leave_without_a_word(tmp_path: Path) -> None:
    runs = {1: ablation(3.0, 4.0), 2: ablation(3.2, 4.0), 3: ablation(float("inf"), 4.0)}
    text = markdown(report(sweep(tmp_path, ["arm"], {("kept",): runs})), "pictures")
    assert "(2 of 3 seeds finite)" in text


def test_no_path_and_no_name_of_a_machine_is_on_the_page(study: Study, tmp_path: Path) -> None:
    assert str(tmp_path) not in html(report(study))


def test_text_is_escaped() -> None:
    nasty = "<b>&\"' `a<b` **c<d**"
    page = Page(nasty, [Lead(nasty), Paragraph(nasty), Table(["<i>"], [["|<u>"]]), Listing("<x>", "</pre>")])
    text = html(page)
    assert "<code>a&lt;b</code> <strong>c&lt;d</strong>" in text
    assert {"b", "i", "u", "x"}.isdisjoint(Checked(text).seen)
    assert "| \\|<u> |" in markdown(page, "pictures")


def test_a_markdown_table_has_as_many_columns_in_every_row() -> None:
    rows = table(Table(["a", "b"], [["1", "x\ny"], ["2", "p|q"]], frozenset({0}))).splitlines()
    assert rows[1] == "| ---: | --- |"
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3, 3, 3]


def test_a_second_report_takes_the_place_of_the_first(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(Page("old", report(study).blocks[:2]), out)
    (out / "mine.txt").write_text("stays")
    write(report(study), out)
    assert sorted(path.name for path in out.glob("[!.]*") if not path.is_dir()) == [
        "mine.txt",
        "report.html",
        "report.md",
    ]
    (pictures,) = (path for path in out.iterdir() if path.is_dir())
    linked = re.findall(rf"\({pictures.name}/(\S+)\)", (out / "report.md").read_text())
    assert (
        sorted(linked)
        == sorted(path.name for path in pictures.iterdir())
        == ["curves.png", "differences.png", "lengths.png", "solving.png"]
    )
    assert "old" not in (out / "report.html").read_text()[:2000]


def test_a_report_takes_nobody_elses_pictures_away(study: Study, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "pictures-holiday"
    mine.mkdir(parents=True)
    write(report(study), mine.parent)
    assert mine.is_dir()


def test_a_dashboard_takes_the_place_of_nothing_but_event_files(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        write_dashboard(study, out)
    (out / "summary" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a new folder, or one that `dashboard` wrote"):
        write_dashboard(study, out)
    assert (out / "summary" / "notes.txt").read_text() == "mine"


def test_out_that_is_a_file_is_refused(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder, this is a file"):
        write(report(study), tmp_path / "file")


@pytest.mark.slow
def test_thirty_conditions_stay_small_multiples(tmp_path: Path) -> None:
    values: Values = {
        (arm, f"e{number}"): {1: ablation(3.0 + number / 10, 3.5)}
        for arm in ("kept", "dropped")
        for number in range(15)
    }
    page = report(sweep(tmp_path, ["arm", "model.position"], values))
    lengths = page.pictures[0].png
    width, height = (int.from_bytes(lengths[at : at + 4], "big") for at in (16, 20))
    assert 1000 < width < 1500
    assert 1000 < height < 1600  # four rows of four


def test_probes_stand_in_a_row_a_picture_and_a_column_a_run(study: Study, tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, name, values=[0.5]) for name in ("plain", "meta")]
    png = report(study).pictures[0].png
    for folder in folders:
        (folder / "probe").mkdir()
        (folder / "probe" / "entropy.png").write_bytes(png)
    (folders[1] / "probe" / "entropy.csv").write_text("layer,nats\n")
    (folders[1] / "probe" / "norms.png").write_bytes(png)
    page = report(of_runs(folders, "side by side"), with_probes=True)
    write(page, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    header, _, entropy, norms = text[text.index("## Probes") :].splitlines()[2:6]
    assert header == "|  | plain | meta |"
    assert entropy.startswith("| entropy | ![entropy, plain](")
    assert norms.startswith("| norms | – | ![norms, meta](")
    checked = Checked((tmp_path / "out" / "report.html").read_text())
    assert sum(source.startswith("data:text/csv") for source in checked.sources) == 1


@pytest.mark.parametrize("metric", [EXACT, "accuracy/token/val"])
def test_prompts_of_one_run_are_no_interval_of_a_condition(tmp_path: Path, metric: str) -> None:
    runs = [write_run(tmp_path / arm, arm, values=[0.5], metric=metric) for arm in ("plain", "meta")]
    text = markdown(report(of_runs(runs, "runs")), "pictures")
    assert "1 run, no interval" in text
    assert not re.search(r"\[[+−]?0\.\d+, ", text)
