"""`python -m lightning_metatok` is `lightning-metatok`."""

import sys

from lightning_metatok.cli import main

if __name__ == "__main__":
    sys.exit(main())
