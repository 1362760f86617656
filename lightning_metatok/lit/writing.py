"""Text as it is written: ids come one at a time, text goes out as soon as it cannot change any more.

    ids in       "th" "e" " €1" "€2" "EN" "D"         an € comes in two tokens; stop string "END"
    text out     th   e             " €"              what may be the start of a stop string waits, half a character too

Text from the first stop string on is never written; the first is the one that is met first, that is whole first.
"""

from collections.abc import Callable, Iterable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What half a character is decoded as."""
CONTEXT = 8
"""Ids of the prompt that are read again: a tokenizer of words has a blank before each but the first."""
LONGEST = 3
"""Bytes of the longest part of a character that is not the whole; what is longer is no character at all."""


class Writing:
    """The text of one continuation, growing."""

    def __init__(self, decode: Callable[[Iterable[int]], str], prompt: Iterable[int], stop: Sequence[str] = ()) -> None:
        """`decode`: text of ids. `prompt`: those before, in whose sight the continuation is decoded."""
        self._decode, self._stop = decode, tuple(filter(None, stop))
        self._context = list(prompt)[-CONTEXT:]
        self._start = len(decode(self._context))
        self._sent = 0
        self.ids: list[int] = []
        """Taken up so far."""
        self.stopped = False
        """Whether a stop string was met."""

    @property
    def text(self) -> str:
        """The continuation up to a stop string; half a character at its end is shown as such."""
        text = self._all()
        return text[: self._stop_at(text)]

    def take(self, id: int) -> str:
        """Take up the next id; return the text that can be shown now and could not before."""
        self.ids.append(id)
        text = self._all()
        behind = self._stop_at(text)
        self.stopped = behind is not None
        return self._send(text, self._certain(text) if behind is None else behind)

    def end(self) -> str:
        """Return what was still held back; no more ids come."""
        text = self.text
        return self._send(text, len(text))

    def _send(self, text: str, behind: int) -> str:
        new, self._sent = text[self._sent : behind], max(self._sent, behind)
        return new

    def _all(self) -> str:
        return self._decode([*self._context, *self.ids])[self._start :]

    def _stop_at(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((at for at in map(text.find, self._stop) if at >= 0), default=None)

    def _certain(self, text: str) -> int:
        """How much of the text no further id can change or make a stop string of."""
        halves = len(text) - len(text.rstrip(UNFINISHED))
        whole = text[: len(text) - min(halves, LONGEST)]
        held = (n for stop in self._stop for n in range(1, len(stop)) if whole.endswith(stop[:n]))
        return len(whole) - max(held, default=0)
