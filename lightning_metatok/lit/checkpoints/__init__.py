"""What a run leaves behind so that it can go on: checkpoints, what is in them, and which one is taken."""

CHECKPOINTS = "checkpoints"
"""Folder of a run that they lie in."""
CONFIG = "config.yaml"
"""Beside that folder: what the run was told."""
