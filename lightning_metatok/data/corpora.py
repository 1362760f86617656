"""The text to train, to validate and to test on: local files, a hub data set, or Python's own sources.

    data.corpus                        train                           held out of training
    python-stdlib                      95 % of the files               5 % of the files
    notes.txt (one document)           its first 95 %                  its last 5 %, from a line (a word) on
    docs/, docs/*.jsonl.gz, [a, b]     95 % of the documents           5 % of the documents, see `splits`
    data/ with train.* and valid.*     what is named train             what is named valid
    train.jsonl + validation_corpus    train.jsonl                     validation_corpus
    allenai/c4 + corpus_subset en      its split train                 its split validation
    {a.jsonl: 3, python-stdlib: 1}     of each what trains, 3 : 1      of each what is held out, 3 : 1
    ["a text", "another"], a Source    95 % of the documents           5 % of the documents

Of what is held out one half validates and the other tests (`test_fraction`), where no files named test and no
`test_corpus` do. Which document is on which side follows from a hash of its text (of its path, for python-stdlib and
training), so equal documents stay on one side and adding a document moves no other. All sources are streamed: nothing
is written to disk here.
"""

import dataclasses
import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_metatok.data.corpus import Corpus, CorpusConfig
from lightning_metatok.data.local_files import find_files, format_of, left_out, shards
from lightning_metatok.data.mixture import Mixture, Part, Side, parts_of
from lightning_metatok.data.sources import PYTHON_STDLIB, Files, HubSplit, PythonSources, Source, stdlib_names
from lightning_metatok.data.splits import SPLITS, Named, Split, by_name, is_aside
from lightning_metatok.errors import UserError
from lightning_metatok.registry import Registry

__all__ = ["CORPORA", "SPLITS", "Corpus", "CorpusConfig", "Split", "looks_local", "open_corpus"]


def open_corpus(config: CorpusConfig) -> Corpus:
    """Return the corpus that `config` names. Text is read later, by `Corpus.documents`.

    Raises:
        UserError: no such file, folder or corpus; nothing is left to train on beside `validation_corpus`.
    """
    if isinstance(config.corpus, Mapping):
        return _open_mixture(config, parts_of(config.corpus))
    if isinstance(config.corpus, Source):
        return Corpus(config, config.corpus, _files(config, "validation"), _files(config, "test"))
    if config.corpus == PYTHON_STDLIB:
        return _open_python(config)
    if isinstance(config.corpus, str) and (config.corpus in CORPORA or is_class(config.corpus)):
        return _open_class(config, config.corpus)
    if isinstance(config.corpus, str) and not looks_local(config.corpus):
        return _open_hub(config, config.corpus)
    named, option = _named(config.corpus, "data.corpus"), f"data.corpus={config.corpus!r}"
    train, validation, test = named.train, named.validation, named.test
    notes = [f"{option}: {named.said}" if named.said else ""]
    if config.validation_corpus is not None:
        validation = _paths(config.validation_corpus, "data.validation_corpus")
        train, note = _without(train, validation, config, "validation")
        notes.append(note)
    if config.test_corpus is not None:
        test = _paths(config.test_corpus, "data.test_corpus")
        train, note = _without(train, test, config, "test")
        notes.append(note)
        if validation and not (validation := _others(validation, test)):
            raise UserError(
                f"data.test_corpus={config.test_corpus!r}: holds all of the validation text; expected other"
            )
    notes += [_unread(config.corpus, option), f"{option}: {line}" if (line := shards(train)) else ""]
    sources = [_read(paths, config) for paths in (train, validation, test)]
    return Corpus(
        config,
        sources[0],
        sources[1] if validation else None,
        sources[2] if test else None,
        tuple(filter(None, notes)),
    )


def _open_python(config: CorpusConfig) -> Corpus:
    names = stdlib_names()
    kept = [is_aside(name, config.validation_fraction) for name in names]
    train = PythonSources(tuple(name for name, other in zip(names, kept, strict=True) if not other))
    validation = PythonSources(tuple(name for name, own in zip(names, kept, strict=True) if own))
    return Corpus(config, train, _files(config, "validation") or validation, _files(config, "test"))


def _open_mixture(config: CorpusConfig, parts: Mapping[str, Part]) -> Corpus:
    """Open each corpus by itself; all are told of text that is held out by a path, so that none trains on it."""
    corpora = {}
    for name, part in parts.items():
        common: dict[str, Any] = {"max_documents": None}
        if not _is_local(name):  # there, these name splits of a data set
            common |= {"validation_corpus": None, "test_corpus": None}
        one = open_corpus(dataclasses.replace(config, corpus=name, **{**common, **part.options}))
        corpora[name] = one
    names, weights = tuple(corpora), tuple(part.weight for part in parts.values())

    def mixed(sources: Sequence[Source]) -> Mixture:
        return Mixture(names, tuple(sources), weights, config.mixture_ends)

    tests = [one.test for one in corpora.values() if one.test is not None]
    return Corpus(
        config,
        mixed([Side(one, trains=True) for one in corpora.values()]),
        _files(config, "validation") or mixed([Side(one, trains=False) for one in corpora.values()]),
        _files(config, "test") or (mixed(tests) if len(tests) == len(corpora) else None),
        tuple(dict.fromkeys(note for one in corpora.values() for note in one.notes)),
    )


def _is_local(name: str) -> bool:
    return name == PYTHON_STDLIB or looks_local(name) or name in CORPORA or is_class(name)


def _open_class(config: CorpusConfig, name: str) -> Corpus:
    kind = CORPORA.resolve(name)
    try:
        source = kind()
    except TypeError as error:
        raise UserError(f"data.corpus={name}: {error}; expected a class that is built without arguments") from error
    return Corpus(config, source, _files(config, "validation"), _files(config, "test"))


def _files(config: CorpusConfig, split: Split) -> Files | None:
    key = f"{split}_corpus"
    if (given := getattr(config, key)) is None:
        return None
    return _read(_paths(given, f"data.{key}"), config)


def _read(paths: tuple[Path, ...], config: CorpusConfig) -> Files:
    return Files(paths, config.text_field, config.text_documents, config.document_start)


HELD_OUT = "held_out"
"""In place of a split to validate on, where a data set has none: `data.validation_fraction` of its documents."""


def _open_hub(config: CorpusConfig, name: str) -> Corpus:
    split, test = config.validation_corpus or "validation", config.test_corpus
    for key, given, others in (("validation", split, ("train",)), ("test", test, ("train", split))):
        if given is not None and (given in others or not isinstance(given, str)):
            raise UserError(
                f"data.{key}_corpus={given!r}: expected the name of a split of {name}; "
                + (
                    f"it validates on {split}"
                    if given != "train"
                    else f"train is what it trains on, and {HELD_OUT} a share of it, whole documents, held out"
                )
            )
    parts = {
        part: HubSplit(name, config.corpus_subset, part, config.text_field, config.streaming, config.document_start)
        for part in ("train", split, test)
        if isinstance(part, str) and part != HELD_OUT
    }
    validation = None if split == HELD_OUT else parts[str(split)]
    return Corpus(config, parts["train"], validation, None if test is None else parts[str(test)])


def looks_local(name: str) -> bool:
    """Return whether `name` is meant as a path: it exists, is a glob, or starts or ends like a path."""
    return (
        os.path.lexists(Path(name).expanduser())
        or glob.has_magic(name)
        or format_of(name) is not None
        or name.startswith(("/", "./", "../", "~"))
    )


def is_class(name: str) -> bool:
    """Return whether `name` is meant as the dotted path of a class, not as a path or a data set of the hub."""
    return re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name) is not None and not looks_local(name)


CORPORA: Registry[Source] = Registry(
    "data.corpus",
    Source,
    {},
    group="corpora",
    is_path=is_class,
)
"""Text that is neither in files nor on the hub."""


def _entries(given: list[str] | str, option: str) -> list[str]:
    """Return the paths, folders and globs in `given`; all that are missing are named at once."""
    entries = [given] if isinstance(given, str) else given
    if not entries or not all(isinstance(entry, str) and entry.strip() for entry in entries):
        raise UserError(f"{option}={given!r}: expected a path, or a list of paths")
    missing = [e for e in entries if not (os.path.lexists(Path(e).expanduser()) or glob.has_magic(e))]
    if len(missing) > 1:
        raise UserError(f"{option}: no such files: {', '.join(map(repr, missing))}")
    return entries


def _paths(given: list[str] | str, option: str) -> tuple[Path, ...]:
    """Return the files that `given` stands for, each once. Raises as `find_files` does."""
    return tuple(dict.fromkeys(path for entry in _entries(given, option) for path in find_files(entry, option)))


def _named(given: list[str] | str, option: str) -> Named:
    """Tell the files of `given` apart by name, where folders and globs found them. Raises as `find_files` does."""
    found: dict[str, tuple[Path, Path]] = {}
    for entry in _entries(given, option):
        base = Path(entry).expanduser()
        parts = list(itertools.takewhile(lambda part: not glob.has_magic(part), base.parts))
        top = base if os.path.isdir(base) else Path(*parts)
        for path in find_files(entry, option):
            # A file that is named itself is what its user says it is.
            relative = path.relative_to(top) if path != base else Path()
            found.setdefault(os.path.realpath(path), (path, relative))
    return by_name(list(found.values()))


def _without(
    train: Sequence[Path], held: Sequence[Path], config: CorpusConfig, split: str
) -> tuple[tuple[Path, ...], str]:
    """Return `train` without the files `held` out for `split`, and a line about it, or ""."""
    left = _others(train, held)
    where = f"data.{split}_corpus={getattr(config, f'{split}_corpus')!r}"
    if not left:
        purpose = "validate" if split == "validation" else split
        raise UserError(f"{where}: holds all of data.corpus={config.corpus!r}; expected other text to {purpose} on")
    n = len(train) - len(left)
    return left, f"{where}: {n} file{'s' * (n != 1)} of data.corpus in it, left out of training" if n else ""


def _others(paths: Sequence[Path], without: Sequence[Path]) -> tuple[Path, ...]:
    left_out = {os.path.realpath(path) for path in without}
    return tuple(path for path in paths if os.path.realpath(path) not in left_out)


def _unread(given: list[str] | str, option: str) -> str:
    entries = [given] if isinstance(given, str) else given
    line = left_out([entry for entry in entries if not os.path.isfile(Path(entry).expanduser())])
    return f"{option}: {line}" if line else ""
