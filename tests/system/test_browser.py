"""A sweep that ran, seen in a real browser: the report on its own, the dashboard in TensorBoard.

LIGHTNING_METATOK_SCREENSHOTS=FOLDER keeps a picture of everything that was looked at.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.browser import chromium, open_page
from tests.system.helpers import run

pytestmark = pytest.mark.browser

WAIT_MS = 60_000
SEEDS = [1, 2]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def sweep(browser: Any, corpus: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name a sweep whose two arms of two seeds were trained."""
    folder = tmp_path_factory.mktemp("browser")
    content = {
        "configs": [str(repository / "conf" / "debug.yaml")],
        "set": {"data.corpus": str(corpus), "ablation.multiples": [1, 2], "bigram.enabled": False},
        "arms": {"kept": {}, "dropped": {"set": {"model.drop_positions": "both"}}},
        "seeds": SEEDS,
        "collect": ["loss/val", "ablation/kept_1x", "ablation/dropped_1x"],
    }
    file = folder / "positions.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    arguments = [str(file), f"--folder={folder / 'sweep'}"]
    outcome = run("sweep", "run", *arguments, "--workers=2")
    assert outcome.code == 0, outcome.err
    return arguments


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go."""
    wanted = os.environ.get("LIGHTNING_METATOK_SCREENSHOTS")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def report(sweep: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the sweep, moved to where nothing else of it is."""
    out = tmp_path_factory.mktemp("report")
    outcome = run("report", *sweep, f"--out={out}")
    assert outcome.code == 0, outcome.err
    return (out / "report.html").rename(tmp_path_factory.mktemp("alone") / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_stands_alone_and_fits(browser: Any, report: Path, pictures: Path, width: int, scheme: str) -> None:
    page, heard = open_page(browser, width, scheme=scheme)
    page.goto(report.as_uri())
    assert [url for url in heard.requests if not url.startswith("data:")] == [report.as_uri()]
    assert heard.errors == []
    widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 3
    assert min(widths) > 300
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lead, picture = page.locator(".lead").bounding_box(), page.locator("img").first.bounding_box()
    assert lead["y"] < picture["y"]
    assert picture["y"] < 1000  # the main figure begins on the first screen
    assert "dropped" in page.locator(".lead").inner_text()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    assert dark == (scheme == "dark")
    page.screenshot(path=pictures / f"report-{width}-{scheme}.png", full_page=True)
    page.close()


@pytest.fixture(scope="module")
def url(sweep: list[str], repository: Path) -> Iterator[str]:
    """The address that is printed for the sweep's dashboard; told to end, it leaves nothing behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lightning_metatok", "dashboard", *sweep, f"--port={port}"]
    process = subprocess.Popen(
        command,
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has made them, and what they start, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        match = next((m for line in process.stdout if (m := re.search(r"http://\S+", line))), None)
        assert match is not None, process.wait()
        outcome = run("dashboard", *sweep, f"--port={port}")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert f"--port={port}: Address already in use; expected a free port" in outcome.err
        yield match[0]
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
        process.stdout.close()
    assert code == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0  # TensorBoard has ended, too


@pytest.fixture
def tab(browser: Any, url: str, request: pytest.FixtureRequest, pictures: Path) -> Iterator[Any]:
    """A page on the tab that the test asks for; its picture is taken at the end."""
    page, _ = open_page(browser, 1500)
    page.goto(url.replace("custom_scalars", request.param))
    yield page
    page.screenshot(path=pictures / f"tensorboard-{request.param}.png")
    page.close()


@pytest.mark.parametrize("tab", ["custom_scalars"], indirect=True)
def test_custom_scalars_overlay_the_arms(tab: Any) -> None:
    cards = tab.locator("tf-custom-scalar-margin-chart-card")
    cards.last.wait_for(timeout=WAIT_MS)
    titles = cards.evaluate_all("found => found.map(card => card.title)")
    assert titles[0].startswith("all conditions as trained: loss (nats per source token), step: context length")
    listed = tab.locator("tf-runs-selector").evaluate("selector => selector.selectedRuns")
    readings = {f"{arm}/read {reading}" for arm in ("kept", "dropped") for reading in ("kept", "dropped")}
    assert set(listed) == {"summary", "kept", "dropped"} | readings  # and no single run
    assert tab.get_by_text("Missing Tags").count() == 0
    # Two arms over each other, each a line with its band; kept and dropped: twice as many.
    for card, series in ((cards.nth(0), 2), (cards.nth(1), 4)):
        card.locator("path.area").nth(series - 1).wait_for(state="attached", timeout=WAIT_MS)
        assert card.locator("path.area").count() == series
        paths = card.locator("path.line").evaluate_all("found => found.map(path => path.getAttribute('d'))")
        assert sum((path or "").count("L") == 1 for path in paths) >= series  # from one length to the other
    assert any("loss/val" in title for title in titles)


@pytest.mark.parametrize("tab", ["hparams"], indirect=True)
def test_hparams_have_a_row_a_run(tab: Any) -> None:
    cells = tab.locator("vaadin-grid-cell-content")
    cells.get_by_text("dropped", exact=True).nth(len(SEEDS) - 1).wait_for(timeout=WAIT_MS)
    texts = [text.strip() for text in cells.all_inner_texts()]
    assert texts[:5] == ["Trial ID", "Show Metrics", "arm", "seed", "final/loss/val"]
    assert (texts.count("kept"), texts.count("dropped")) == (len(SEEDS), len(SEEDS))
    losses = [float(text) for text in texts if re.fullmatch(r"\d\.\d{4}", text) and float(text) > 2]
    assert len(losses) >= 3 * 2 * len(SEEDS)  # three metrics of every run


@pytest.mark.parametrize("tab", ["images"], indirect=True)
def test_images_are_the_figures_of_the_report(tab: Any) -> None:
    images = tab.locator("tf-image-loader img")
    images.nth(2).wait_for(timeout=WAIT_MS)
    sizes = images.evaluate_all(
        "found => Promise.all(found.map(image => image.decode().then(() => image.naturalWidth)))"
    )
    assert len(sizes) == 3
    assert min(sizes) > 300


@pytest.mark.parametrize("tab", ["text"], indirect=True)
def test_text_begins_with_the_verdict(tab: Any) -> None:
    texts = tab.locator("tf-text-loader")
    texts.first.locator("table").wait_for(timeout=WAIT_MS)
    cells = texts.first.locator("td").all_inner_texts()
    assert "dropped − kept" in cells
    assert cells.count("1×") == cells.count("2×") == 1
