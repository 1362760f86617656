"""What prepared text is like, as a page: how much of it there is, what is there twice, how long documents are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from lightning_metatok.data import TokenStore
from lightning_metatok.data.splits import Split
from lightning_metatok.lit import MetaTokenDataModule
from lightning_metatok.palette import GREY, line_style
from lightning_metatok.report.figures import png
from lightning_metatok.report.page import Block, Heading, Lead, Page, Paragraph, Picture, Table


@dataclass(frozen=True)
class Part:
    """A split in numbers.

    Attributes:
        lengths: of its documents, in tokens, <|endoftext|> included.
        n_bytes: of its text in UTF-8.
        n_repeated: documents that are, token for token, one that stands before them in the split.
    """

    split: Split
    lengths: NDArray[np.int64]
    n_bytes: int
    n_repeated: int

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.lengths.sum())

    @property
    def bytes_a_token(self) -> float:
        """UTF-8 bytes that a token stands for; <|endoftext|> counts none and is none here."""
        return self.n_bytes / max(1, self.n_tokens - len(self.lengths))


def measure(store: TokenStore, split: Split) -> Part:
    """Read `split` once. Takes 16 bytes of memory a document."""
    stream, starts = store.stream(split), store.document_starts(split)
    ends = np.append(starts[1:], len(stream))
    digests = np.fromiter(
        (xxhash.xxh3_64_intdigest(stream[start:end].data) for start, end in zip(starts, ends, strict=True)),
        dtype=np.uint64,
        count=len(starts),
    )
    digests.sort()
    repeated = int((digests[1:] == digests[:-1]).sum())
    return Part(split, ends - starts, store.n_bytes(split), repeated)


def page(data: MetaTokenDataModule) -> Page:
    """Return the page on the prepared text of `data`."""
    store, block = data.store, data.rule.source_length(data.block_size)
    parts = [measure(store, split) for split in store.splits]
    train = parts[0]
    repeated = f", {train.n_repeated / len(train.lengths):.1%} of them there before" if train.n_repeated else ""
    blocks: list[Block] = [
        Lead(
            f"{len(train.lengths):,} documents to train on{repeated}: {train.n_tokens:,} tokens of "
            f"{train.bytes_a_token:.2f} bytes, {train.n_tokens // block:,} blocks of {block:,}."
        ),
        Heading("How much there is"),
        amounts(parts),
        Heading("How long documents are"),
        Picture("lengths", png(lengths_figure(parts, block)), lengths_caption(train, block)),
        *remarks([*store.notes, *store.warnings]),
        Heading("What it was made of"),
        Table(
            ("key", "value"),
            [
                ("`data.corpus`", data.title),
                ("`data.tokenizer`", f"{data.config.tokenizer or 'trained on it'}, {data.tokenizer.vocab_size:,} ids"),
                ("folder", str(store.folder)),
            ],
        ),
    ]
    return Page(f"Text: {data.title}", blocks)


def amounts(parts: Sequence[Part]) -> Table:
    """Return a row a split."""
    header = ("split", "documents", "of them repeated", "MB", "tokens", "bytes a token", "median length", "longest")
    rows = [
        (
            part.split,
            f"{len(part.lengths):,}",
            f"{part.n_repeated:,} ({part.n_repeated / len(part.lengths):.1%})",
            f"{part.n_bytes / 1e6:,.2f}",
            f"{part.n_tokens:,}",
            f"{part.bytes_a_token:.2f}",
            f"{np.median(part.lengths):,.0f}",
            f"{part.lengths.max():,}",
        )
        for part in parts
    ]
    caption = (
        "Tokens and lengths count the end of each document. A document is repeated that is, token for token, one that "
        "stands before it in its split."
    )
    return Table(header, rows, frozenset(range(1, len(header))), caption)


def lengths_figure(parts: Sequence[Part], block: int) -> Figure:
    """Share of documents and of tokens by the length of the document, a line a split."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    of_documents, of_tokens = figure.subplots(1, 2, sharex=True)
    shortest = min(int(part.lengths.min()) for part in parts)
    longest = max(int(part.lengths.max()) for part in parts)
    edges = 2.0 ** np.arange(np.floor(np.log2(shortest)), np.floor(np.log2(longest)) + 2)
    for number, part in enumerate(parts):
        colour, _ = line_style(number)
        for axes, weights in ((of_documents, np.ones(len(part.lengths))), (of_tokens, part.lengths)):
            counts, _ = np.histogram(part.lengths, edges, weights=weights)
            shares = counts / counts.sum()
            axes.stairs(shares, edges, label=part.split, color=colour, linewidth=1.6, zorder=3 - number)
            if part.split == "train":
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.15)
    for axes, what in ((of_documents, "documents"), (of_tokens, "tokens")):
        axes.axvline(block, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            "a block", (block, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
            fontsize=8, color=GREY, va="top",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens in the document")
        axes.set_title(f"share of {what}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    of_documents.legend(frameon=False, fontsize=8)
    return figure


def lengths_caption(part: Part, block: int) -> str:
    """Say what of the training text lies in documents that a block does not hold."""
    longer = part.lengths > block
    tokens = part.lengths[longer].sum() / part.n_tokens
    return (
        f"{longer.mean():.1%} of the documents to train on are longer than a block of {block:,} tokens and hold "
        f"{tokens:.1%} of the tokens; the mean is {part.lengths.mean():,.0f} tokens. Lengths are counted in octaves."
    )


def remarks(lines: Sequence[str]) -> list[Block]:
    """Return what was said about how the text was read, where anything was."""
    return [Heading("What to know about it"), *map(Paragraph, lines)] if lines else []
