"""One call from options to tokens; a second start finds everything where the first one left it."""

import ast
import dataclasses
import inspect
import itertools
import time
from pathlib import Path

import pytest

from lightning_metatok.data.corpora import CorpusConfig
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.errors import UserError
from tests.data import foreign


def options(corpus_file: Path, cache: Path, **others: object) -> DataConfig:
    values = {"corpus": str(corpus_file), "validation_fraction": 0.25, "vocab_size": 270, **others}
    return DataConfig(cache_dir=str(cache), **values)  # type: ignore[arg-type]


def test_a_second_start_finds_the_same_data_without_reading_the_corpus(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(corpus_file, tmp_path)
    tokenizer, store = prepare(config)
    assert tokenizer.vocab_size == 270
    monkeypatch.setattr("lightning_metatok.data.corpora.Corpus.documents", lambda *_: pytest.fail("read"))
    started = time.perf_counter()
    again, same_store = prepare(config)
    assert time.perf_counter() - started < 1  # 0.01 s when nothing else runs
    assert again.fingerprint() == tokenizer.fingerprint()
    assert same_store.folder == store.folder


def test_a_change_of_corpus_or_vocabulary_is_prepared_anew(corpus_file: Path, tmp_path: Path) -> None:
    folders = {prepare(options(corpus_file, tmp_path, vocab_size=size))[1].folder for size in (260, 270)}
    changed = tmp_path / "changed.jsonl"
    changed.write_text(corpus_file.read_text() + '{"text": "one more"}\n')
    folders.add(prepare(options(changed, tmp_path))[1].folder)
    assert len(folders) == 3


def test_a_given_tokenizer_is_taken_as_it_is(corpus_file: Path, tmp_path: Path) -> None:
    trained, _ = prepare(options(corpus_file, tmp_path))
    trained.save(tmp_path / "tokenizer.json")
    given, _ = prepare(options(corpus_file, tmp_path, tokenizer=str(tmp_path / "tokenizer.json")))
    assert given.fingerprint() == trained.fingerprint()


def test_wrong_options_name_their_key(corpus_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.vocab_size=100: expected at least 258"):
        options(corpus_file, tmp_path, vocab_size=100)
    with pytest.raises(UserError, match=r"data\.tokenizer='absent\.json': no such file"):
        prepare(options(corpus_file, tmp_path, tokenizer="absent.json"))
    with pytest.raises(UserError, match=r"data\.tokenizer='nobody/nothing': cannot be loaded"):
        prepare(options(corpus_file, tmp_path, tokenizer="nobody/nothing"))  # HF_HUB_OFFLINE is set


def test_every_option_has_a_line_of_help() -> None:
    documented = set()
    for config in (CorpusConfig, DataConfig):
        (definition,) = ast.parse(inspect.getsource(config)).body
        assert isinstance(definition, ast.ClassDef)
        for field, following in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(following, ast.Expr):
                documented.add(ast.unparse(field.target))
    assert documented == {field.name for field in dataclasses.fields(DataConfig)}


@pytest.mark.parametrize("setting", ["truncation", "truncation-left", "padding", "padding-multiple", "template"])
def test_settings_stored_in_a_tokenizer_change_no_token_of_a_corpus(
    setting: str, corpus_file: Path, tmp_path: Path
) -> None:
    stores = []
    for name, change in (("plain", lambda tokenizer: None), (setting, foreign.SWITCHED_OFF[setting])):
        path = tmp_path / f"{name}.json"
        path.write_text(foreign.written(foreign.byte_level(), change), encoding="utf-8")
        stores.append(prepare(options(corpus_file, tmp_path / name, tokenizer=str(path)))[1])
    plain, other = (store.stream("train").tolist() for store in stores)
    assert plain == other


def test_what_a_tokenizer_loses_is_found_in_the_corpus(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(foreign.written(foreign.byte_level(), foreign.normalize(foreign.n.Lowercase())), encoding="utf-8")
    monkeypatch.setattr("lightning_metatok.data.tokenizer.MetaTokenizer._check", lambda *_: None)
    with pytest.raises(UserError, match=r"mine\.json': text '.*' becomes '.*', in data\.corpus"):
        prepare(options(corpus_file, tmp_path / "cache", tokenizer=str(path)))
    assert not list((tmp_path / "cache").rglob("*.bin"))
