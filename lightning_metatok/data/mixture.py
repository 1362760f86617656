"""Several corpora read as one, each with its share of the text.

    {a: 3, b: 1}      a a a b a a a b ...      documents are whole and differ in length: shares are those of UTF-8 bytes

The next document is always of the corpus that is furthest behind its share: nothing is drawn, any stretch of the stream
holds the shares to within one document of each corpus, and a run that goes on after a stop gets the same batches. The
mixture ends with the corpus that ends first, so that no text is read twice in a pass; with `all` the others are read
again until each has ended once.

A place in a mixture is, of each corpus, [bytes before, how often it was read to its end, place of the next document, a
hash of it].
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import xxhash

from lightning_metatok.data.sources import Source, documents_from
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


class Reading:
    """One source of a mixture while it is read: the document that is next, and what was read before it.

    Attributes:
        text: of the next document, `n_bytes` long in UTF-8; None where the source has ended.
        read: bytes that were taken. rounds: how often the source was read to its end.
    """

    ENDED = "ended"

    def __init__(self, source: Source, state: list[Any] | None) -> None:
        self._source = source
        self.read: int
        self.rounds: int
        self.read, self.rounds, place, _ = state or (0, 0, None, 0)
        self._documents: Iterator[tuple[Any, str]] = iter(()) if place == self.ENDED else documents_from(source, place)
        self._advance()

    @property
    def state(self) -> list[Any]:
        """What a reading goes on from, as JSON."""
        return [self.read, self.rounds, self._place, self._digest]

    def take(self) -> None:
        """Count the next document, and go on behind it."""
        self.read += self.n_bytes
        self._advance()

    def begin_again(self) -> None:
        """Read the source from its start."""
        self._documents = documents_from(self._source, None)
        self._advance()

    def _advance(self) -> None:
        self._place: Any
        self.text: str | None
        self._place, self.text = next(self._documents, (self.ENDED, None))
        encoded = (self.text or "").encode()
        self.n_bytes, self._digest = len(encoded), xxhash.xxh3_64_intdigest(encoded)


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
        return (text for _, text in self.documents_from(None))

    def documents_from(self, place: list[Any] | None) -> Iterator[tuple[list[Any], str]]:
        """Yield (place, text) of each document from `place` on; None: from the first one.

        Where a source does not hold at `place` what it did, the first place that is yielded is another.
        """
        states = place or [None] * len(self.sources)
        parts = [Reading(source, state) for source, state in zip(self.sources, states, strict=True)]
        try:
            while True:
                # Ties go to the one named first.
                behind = min(range(len(parts)), key=lambda i: (parts[i].read / self.weights[i], i))
                part = parts[behind]
                if part.text is not None:
                    found = [one.state for one in parts], part.text
                    part.take()
                    yield found
                    continue
                part.rounds += 1
                if self.ends == "first" or all(one.rounds for one in parts) or part.read == 0:
                    break
                part.begin_again()
        finally:  # also where `max_documents` ends it
            self.read.update({name: (part.read, part.rounds) for name, part in zip(self.names, parts, strict=True)})

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
