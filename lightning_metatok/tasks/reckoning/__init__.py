"""Tasks whose answer is reckoned: sums, and labels that depend on a few planted places."""
