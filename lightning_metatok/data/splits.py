"""Which text trains, validates and tests: by the names of files, by a hash of each document, or by a cut inside it.

    train/ valid/ test/ README.md         by name, as `datasets` does; README.md is left out
    10,000 documents                      by hash: whole documents, whose side no other document changes
    two files of 40 MB                    by size: the first 95 % of each train, the last 5 % are held out

What is held out of training, by hash, by size or by name, is divided a second time in the same way, by another hash:
one part validates, the other tests, unless files named test or `data.test_corpus` do.

Documents stay whole where the share that this gives lies between half and twice what was asked for, and where all are
small. Else those that are large for the share are cut, at a line or a blank.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""As in `datasets.data_files`."""
BORDER = "[-._ 0-9]"
PACKED = r"\.gz|\.zst"
CHUNK = 1 << 20
HELD_OUT, TESTS = b"", b"test"
"""Names of the two hashes: which documents are held out of training, and which of these test."""
LARGE = 8
"""A document that holds more than this part of the share to set aside is large: a hash would make it all or nothing."""


def split_of(relative: Path) -> str | None:
    """Return train, validation or test where a folder or the file name of the path says so, the outermost first.

    Names of .py and .md files say what the text is about, and folders of sources are named after what code does.
    """
    name = relative.name.lower()
    if re.search(rf"\.py({PACKED})?$", name):
        return None
    for part in relative.parent.parts if re.search(rf"\.md({PACKED})?$", name) else relative.parts:
        for split, keywords in KEYWORDS.items():
            if re.search(rf"(^|{BORDER})({'|'.join(keywords)})({BORDER}|$)", part.lower()):
                return split
    return None


@dataclass(frozen=True)
class Named:
    """Files of a corpus, told apart by name; all but `train` may be empty, `said` is a line about it, or empty."""

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    said: str = ""


def by_name(files: Sequence[tuple[Path, Path]]) -> Named:
    """Tell (path, its part below what the user named) apart; without a name for two sides, all is for training."""
    sides: dict[str | None, list[Path]] = {"train": [], "validation": [], "test": [], None: []}
    for path, relative in files:
        sides[split_of(relative)].append(path)
    train, validation, test, other = sides.values()
    if not (validation or test) or not (train or other):
        return Named(tuple(path for path, _ in files))
    if not train:
        train, other = other, []
    parts = [f"train {_listed(train)}"]
    parts += [f"{split} {_listed(paths)}" for split, paths in (("validation", validation), ("test", test)) if paths]
    said = f"splits by name: {', '.join(parts)}" + (f"; left out: {_listed(other)} of no split" if other else "")
    return Named(tuple(train), tuple(validation), tuple(test), said)


def _listed(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{len(paths)} file{'s' * (len(paths) != 1)} ({names})"


@dataclass(frozen=True)
class Division:
    """How documents of one source are divided into two sides; made by `divide`.

    Attributes:
        fraction: share that is set aside.
        whole_share: share of the characters that whole documents would give.
        cut_above: characters; longer documents are cut. None: no document is.
        by: which hash decides.
    """

    fraction: float
    whole_share: float
    cut_above: float | None = None
    by: bytes = HELD_OUT

    def parts(self, document: str, aside: bool) -> Iterator[str]:
        """Yield what of `document` is set aside, or what is not: all, a part, or nothing."""
        if self.cut_above is not None and len(document) > self.cut_above:
            cut = _cut(document, self.fraction)
            part = document[cut:] if aside else document[:cut]
            if part and not part.isspace():
                yield part
        elif is_aside(document, self.fraction, self.by) == aside:
            yield document


def divide(
    documents: Iterable[str],
    fraction: float,
    most: int | None = None,
    by: bytes = HELD_OUT,
) -> Division:
    """Measure `documents`, no more of them than give `most` to both sides, and say how to divide them."""
    sizes, counts, largest = [0, 0], [0, 0], 0
    for document in documents:
        side = is_aside(document, fraction, by)
        sizes[side] += len(document)
        counts[side] += 1
        largest = max(largest, len(document))
        if most is not None and min(counts) >= most:
            break
    total = max(1, sum(sizes))
    share, small = sizes[True] / total, fraction * total / LARGE
    return Division(fraction, share, None if near(share, fraction) or largest <= small else small, by)


def near(share: float, fraction: float) -> bool:
    """Return whether both sides get something between half and twice their share."""
    sides = ((share, fraction), (1 - share, 1 - fraction))
    return all(got > 0 and asked / 2 <= got <= 2 * asked for got, asked in sides)


def is_aside(key: str, fraction: float, by: bytes = HELD_OUT) -> bool:
    """Return whether the hash `by` of `key` falls into the share `fraction` of all hashes."""
    digest = hashlib.blake2b(digest_size=8, person=by)
    for start in range(0, len(key), CHUNK):  # a large document is not copied
        digest.update(key[start : start + CHUNK].encode(errors="surrogatepass"))
    return int.from_bytes(digest.digest(), "big") < fraction * 2**64


def _cut(document: str, fraction: float) -> int:
    """Return where the last `fraction` of `document` starts: at a line, else at a blank, in its first half; else there.

    A document too short to have such a part is not cut.
    """
    if len(document) * fraction < 1:
        return len(document)
    start, end = int(len(document) * (1 - fraction)), len(document.rstrip())
    middle = start + (end - start + 1) // 2
    return next((found + 1 for found in (document.find(c, start, middle) for c in "\n ") if found >= 0), start)
