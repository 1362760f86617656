"""Batches for Lightning: of text with meta-tokens, and of a recall task."""
