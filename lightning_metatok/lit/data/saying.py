"""What people should know about their data, said once."""

import sys

from lightning.pytorch.utilities import rank_zero_only

MASKED = (
    "data.objective=masked: hidden tokens are told from both sides, so there are no bits per byte, no bigram model to "
    "beat and no sample of text"
)
NO_TEST = "warning: there is no text to test on (data.test_fraction, data.test_corpus): it is validated on"


@rank_zero_only
def say_of_data(line: str) -> None:
    """Print what people should know about their data, once: warnings to stderr."""
    warning = line.startswith("warning: ")
    print(f"lightning-metatok: {line}" if warning else line, file=sys.stderr if warning else sys.stdout)
