"""Several corpora read as one, each with its share of the text.

    {a: 3, b: 1}      a a a b a a a b ...      documents are whole and differ in length: shares are those of UTF-8 bytes

The next document is always of the corpus that is furthest behind its share: nothing is drawn, any stretch of the stream
holds the shares to within one document of each corpus, and a run that goes on after a stop gets the same batches. The
mixture ends with the corpus that ends first, so that no text is read twice in a pass; with `all` the others are read
again until each has ended once.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from lightning_metatok.data.sources import Source
from lightning_metatok.errors import UserError, nearest

if TYPE_CHECKING:
    from lightning_metatok.data.corpus import Corpus

Ends = Literal["first", "all"]
WEIGHT = "weight"
OWN_OPTIONS = (
    "corpus_subset",
    "text_field",
    "text_documents",
    "document_start",
    "validation_corpus",
    "test_corpus",
    "streaming",
)
"""What a corpus in a mixture may have of its own; the rest is that of the mixture."""


@dataclass(frozen=True)
class Part:
    """One corpus of a mixture: its weight, and the options that differ from the mixture's."""

    weight: float
    options: Mapping[str, Any]


def parts_of(given: Mapping[str, Any]) -> dict[str, Part]:
    """Read `{corpus: weight}` or `{corpus: {weight: 3, corpus_subset: en}}`; corpora of weight 0 are left out.

    Raises:
        UserError: a weight is no number, negative or not finite, all are 0, or an option is unknown.
    """
    parts = {}
    for name, value in given.items():
        options = dict(value) if isinstance(value, Mapping) else {WEIGHT: value}
        weight = options.pop(WEIGHT, None)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise UserError(f"data.corpus: {name}: weight {weight!r}; expected a number, 0 or more")
        for key in options:
            if key not in OWN_OPTIONS:
                known = (WEIGHT, *OWN_OPTIONS)
                raise UserError(f"data.corpus: {name}: {key}; expected some of {', '.join(known)}{nearest(key, known)}")
        if weight:
            parts[name] = Part(float(weight), options)
    if not parts:
        raise UserError(f"data.corpus={dict(given)!r}: its weights sum to 0; expected one above 0")
    return parts


def check_ends(ends: str) -> None:
    """Raise UserError unless it says when a mixture ends."""
    if ends not in get_args(Ends):
        expected = ", ".join(get_args(Ends))
        raise UserError(f"data.mixture_ends={ends!r}: expected one of {expected}{nearest(ends, get_args(Ends))}")


@dataclass(frozen=True)
class Side:
    """What of a corpus trains, or what is held out of it."""

    corpus: "Corpus"
    trains: bool

    def documents(self) -> Iterator[str]:
        """Yield those with text. Raises UserError where there is none."""
        if self.trains:
            yield from self.corpus.documents("train")
            return
        empty = True
        for document in self.corpus.held_out():
            empty = False
            yield document
        if empty:
            raise UserError(self.corpus.why_empty("validation"))

    def fingerprint(self) -> list[Any]:
        return [self.corpus.fingerprint(), self.trains]


@dataclass(frozen=True)
class Mixture:
    """Documents of several sources, each with its share of the UTF-8 bytes.

    `read` holds, of the last reading of `documents`, (bytes, how often read to the end) of each source.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    ends: Ends = "first"
    read: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict, compare=False)

    def documents(self) -> Iterator[str]:
        open_ones = [source.documents() for source in self.sources]
        places = range(len(open_ones))
        n_bytes, rounds = [0] * len(open_ones), [0] * len(open_ones)
        try:
            while True:
                # Ties go to the one named first.
                place = min(places, key=lambda i: (n_bytes[i] / self.weights[i], i))
                document = next(open_ones[place], None)
                if document is not None:
                    n_bytes[place] += len(document.encode())
                    yield document
                    continue
                rounds[place] += 1
                if self.ends == "first" or all(rounds) or n_bytes[place] == 0:
                    break
                open_ones[place] = self.sources[place].documents()
        finally:  # also where `max_documents` ends it
            self.read.update(zip(self.names, zip(n_bytes, rounds, strict=True), strict=True))

    def fingerprint(self) -> list[Any]:
        return ["mixture", self.ends, list(self.weights), [source.fingerprint() for source in self.sources]]

    def remarks(self) -> tuple[list[str], list[str]]:
        """Return a line that says what was read, and a warning where shares are not what was asked for."""
        total, asked = sum(n for n, _ in self.read.values()), sum(self.weights)
        if not total:
            return [], []
        shares = {name: n / total for name, (n, _) in self.read.items()}
        said = ", ".join(
            f"{name} {shares[name]:.1%} ({n / 1e6:,.1f} MB{f', read {rounds} times' * (rounds > 1)})"
            for name, (n, rounds) in self.read.items()
        )
        ended = ", ".join(name for name, (_, rounds) in self.read.items() if rounds)
        lines = [f"data.corpus: {said}; it ends with {ended or 'data.max_documents'}"]
        wrong = [
            f"{name} has {shares[name]:.1%} of the text, {weight / asked:.1%} was asked for"
            for name, weight in zip(self.names, self.weights, strict=True)
            if abs(shares[name] - weight / asked) > 0.01
        ]
        if wrong:
            wrong = [f"data.corpus: {', '.join(wrong)}: its documents are long; data.text_documents cuts text files"]
        return lines, wrong
