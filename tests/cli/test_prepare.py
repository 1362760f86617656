"""`prepare`: the tokens that `fit` finds are those that it would write, by any number of processes, after any kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from huggingface_hub.utils import httpx

from lightning_metatok.data import cache, tokenising, writing
from lightning_metatok.data.corpora import CorpusConfig, open_corpus
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.errors import OutOfReach, WorkerError
from tests.system.helpers import documents, run, succeed, write_corpus

ROOT = Path(__file__).resolve().parents[2]
DEBUG = ROOT / "conf" / "debug.yaml"
SMALL = ["--data.max_documents=null", "--data.vocab_size=300"]


def files(folder: Path) -> dict[str, bytes]:
    """What lies below a folder, locks and pages left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".html")
    }


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 500 kB: two batches of a process and more; some documents are there twice, one is long."""
    path = write_corpus(tmp_path_factory.mktemp("text") / "text.jsonl", count=150)
    lines = [json.dumps({"text": text}) for text in (*documents(4), " ".join(documents(60)))]
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_fit_finds_what_prepare_wrote_and_would_have_written_the_same(
    text: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"--config={DEBUG}", *SMALL, f"--data.corpus={text}"]
    short = ["--trainer.max_steps=1", "--model.optimizer.warmup_steps=0"]
    said = succeed("prepare", *options, "--workers=2", f"--page={tmp_path / 'page.html'}")
    assert f"page: {tmp_path / 'page.html'}" in said
    ahead = files(own_cache)
    assert {Path(name).name for name in ahead} >= {"train.bin", "train.starts.npy", "store.json", "tokenizer.json"}
    monkeypatch.setattr(writing, "write_stream", lambda *_: pytest.fail("tokenised again"))
    succeed("fit", *options, *short, f"--run_dir={tmp_path / 'run'}")
    monkeypatch.undo()
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "other"))
    succeed("fit", *options, *short, f"--run_dir={tmp_path / 'other-run'}")
    assert files(tmp_path / "other") == ahead


def test_the_page_says_what_the_text_is_like(text: Path, own_cache: Path, tmp_path: Path) -> None:
    options = [f"--config={DEBUG}", *SMALL, f"--data.corpus={text}", "--workers=1"]
    outcome = run("prepare", *options, f"--data.validation_corpus={write_corpus(tmp_path / 'v.jsonl', 20)}")
    assert outcome.err.count("are in the training text, too") == 2
    page = Path(outcome.out.rpartition("page: ")[2].strip())
    assert page.parent == own_cache
    content = page.read_text(encoding="utf-8")
    assert "155 documents to train on, 2.6% of them there before" in content
    assert "4 (2.6%)" in content
    assert "are in the training text, too" in content
    assert content.count("data:image/png") == 1


KILL = """
import os, signal, sys
from lightning_metatok.data import tokenising, writing
from lightning_metatok.data.preparation import DataConfig, prepare
writing.COMMIT, tokenising.SMALL_BATCH, tokenising.BATCH = 20_000, 7_000, 7_000
corpus, cache, dies, workers = sys.argv[1:]
append, seen = writing.Stream.append, 0
def counted(self, encoded):
    global seen
    seen += 1
    if seen == int(dies):
        self._open["bin"].append(encoded.ids[:11])   # half a batch reaches the disk
        self._open["bin"]._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, encoded)
writing.Stream.append = counted
prepare(DataConfig(corpus, vocab_size=300, cache_dir=cache), print, int(workers))
print("batches", seen)
"""


def start(text: Path, cache: Path, dies: int, workers: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILL, str(text), str(cache), str(dies), str(workers)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kills_lose_no_more_than_a_commit_and_change_no_bit(workers: int, text: Path, tmp_path: Path) -> None:
    prepare(DataConfig(str(text), vocab_size=300, cache_dir=str(tmp_path / "whole")))
    root = tmp_path / "killed"
    total = 0
    for dies in (15, 12):
        killed = start(text, root, dies, workers)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert [path.suffix for path in root.glob("tokens-*") if path.is_dir()] == [".partial"], "nobody can read it"
        state = json.loads(next(root.glob("*.partial/train.written.json")).read_text())
        assert state["n_pieces"] > total, "each start gets further"
        total = state["n_pieces"]
    ended = start(text, root, 10**6, workers)
    assert ended.returncode == 0, ended.stderr
    assert files(root) == files(tmp_path / "whole")
    n_batches = int(ended.stdout.rpartition("batches ")[2])
    alone = start(text, tmp_path / "alone", 10**6, workers)
    assert n_batches < int(alone.stdout.rpartition("batches ")[2]) - 15, "what was written is not tokenised again"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["bit", "short", "state"])
def test_what_a_kill_left_is_looked_at_before_it_is_gone_on_from(damage: str, text: Path, tmp_path: Path) -> None:
    prepare(DataConfig(str(text), vocab_size=300, cache_dir=str(tmp_path / "whole")))
    root = tmp_path / "killed"
    assert start(text, root, 40, 1).returncode == -signal.SIGKILL
    (partial,) = root.glob("tokens-*.partial")
    stream, state = partial / "train.bin", partial / "train.written.json"
    if damage == "bit":
        content = bytearray(stream.read_bytes())
        content[100] ^= 1
        stream.write_bytes(content)
    elif damage == "short":
        os.truncate(stream, 50)
    else:
        state.write_text(state.read_text()[:-5])
    prepare(DataConfig(str(text), vocab_size=300, cache_dir=str(root)))
    assert files(root) == files(tmp_path / "whole")


def test_processes_end_with_the_one_that_reads(text: Path, tmp_path: Path) -> None:
    script = KILL.replace("    if seen == int(dies):", "    print(*self_pids(), flush=True)\n    if seen == int(dies):")
    script = "import multiprocessing\nself_pids = lambda: [p.pid for p in multiprocessing.active_children()]\n" + script
    command = [sys.executable, "-c", script, str(text), str(tmp_path / "cache"), "5", "2"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    pids = {int(pid) for pid in killed.stdout.splitlines()[-1].split()}
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.05)


def test_a_process_that_is_killed_is_one_line_and_what_was_written_stays(
    text: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "SMALL_BATCH", 7_000)
    monkeypatch.setattr(writing, "COMMIT", 20_000)
    whole, seen = tokenising.encode, own_cache.parent / "seen"
    killed = own_cache.parent / "killed"

    def dies(*arguments: object) -> object:
        with seen.open("a") as file:
            file.write("x")
        if seen.stat().st_size >= 40 and not killed.exists():  # another process may have written meanwhile
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenising, "encode", dies)
    options = [f"--config={DEBUG}", *SMALL, f"--data.corpus={text}", "--workers=2"]
    outcome = run("prepare", *options)
    assert outcome.code == WorkerError.code, outcome
    assert "a process that tokenises was killed" in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(own_cache.glob("*.partial/train.written.json"))
    assert run("prepare", *options).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_every_batch_that_was_tokenised(
    number: int, code: int, text: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "SMALL_BATCH", 7_000)
    append, seen = writing.Stream.append, [0]

    def asked(self: writing.Stream, encoded: tokenising.Encoded) -> None:
        append(self, encoded)
        seen[0] += 1
        if seen[0] == 20:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(writing.Stream, "append", asked)
    options = [f"--config={DEBUG}", *SMALL, f"--data.corpus={text}", "--workers=2"]
    outcome = run("prepare", *options)
    assert outcome.code == code, outcome
    assert outcome.err.startswith("lightning-metatok: what was tokenised is kept, and the same command goes on")
    first = seen[0]
    assert run("prepare", *options).code == 0
    kept = files(own_cache)
    monkeypatch.undo()
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "whole"))
    succeed("prepare", *options)
    assert files(tmp_path / "whole") == kept
    assert first == 20


@pytest.mark.parametrize("error", [httpx.ReadTimeout("timed out"), ConnectionError("gone")], ids=lambda e: str(e))
def test_a_hub_that_stops_answering_costs_nothing_that_was_tokenised(
    error: Exception, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenising, "BATCH", 7_000)
    monkeypatch.setattr(writing, "COMMIT", 20_000)
    texts, breaks = list(documents(60)), [True]

    def rows(name: str, subset: str | None, split: str, streaming: bool) -> Iterator[dict[str, str]]:
        for place, one in enumerate(texts if split == "train" else texts[:3]):
            if place == 40 and breaks[0]:
                raise error
            yield {"text": one}

    monkeypatch.setattr(datasets, "load_dataset", rows)
    config = DataConfig("nobody/texts", tokenizer=str(trained(text, tmp_path)), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(OutOfReach, match="reading from the hub failed"):
        prepare(config)
    state = json.loads(next((tmp_path / "cache").glob("*.partial/train.written.json")).read_text())
    assert state["n_pieces"] > 20
    breaks[0] = False
    _, store = prepare(config)
    assert store.n_bytes("train") == sum(len(one.encode()) for one in texts)
    assert cache.damage(store.folder) is None


def trained(text: Path, folder: Path) -> Path:
    tokenizer, _ = prepare(DataConfig(str(text), vocab_size=300, cache_dir=str(folder / "of-tokenizer")))
    tokenizer.save(folder / "tokenizer.json")
    return folder / "tokenizer.json"


def test_all_text_is_counted_before_it_is_tokenised(text: Path) -> None:
    for most in (None, 30):
        corpus = open_corpus(CorpusConfig(str(text), max_documents=most))
        whole = sum(len(document) for split in corpus.splits for document in corpus.documents(split))
        assert sum(map(len, corpus.everything())) == whole


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--config: expected a configuration as `fit` takes it"),
        ([f"--config={DEBUG}", "--workers=0"], "--workers=0: expected 1 to"),
        ([f"--config={DEBUG}", "--page=no/such/page.html"], "--page=no/such/page.html: expected a file in a folder"),
        ([f"--config={DEBUG}", "--data.corpus=gone.jsonl"], "data.corpus='gone.jsonl': no such file"),
        ([f"--config={DEBUG}", "--pge=x.html"], "pge"),
        ([f"--config={ROOT / 'conf/task/parity_nano.yaml'}"], "data.task=parity: expected a run on text"),
    ],
)
def test_what_cannot_work_is_one_line(options: list[str], expected: str, own_cache: Path) -> None:
    outcome = run("prepare", *options)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert expected in outcome.err
