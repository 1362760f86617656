"""transformers without its progress bars and notes: what a verb says, it says itself."""


def silence() -> None:
    """Let transformers say errors alone, from now on."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
