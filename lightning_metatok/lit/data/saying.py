"""What people should know about their data, said once."""

import sys

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say_of_data(line: str) -> None:
    """Print what people should know about their data, once: warnings to stderr."""
    warning = line.startswith("warning: ")
    print(f"lightning-metatok: {line}" if warning else line, file=sys.stderr if warning else sys.stdout)
