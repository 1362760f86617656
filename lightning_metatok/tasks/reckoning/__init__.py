"""Tasks whose answer is reckoned: sums, expressions, boards, and labels that depend on a few planted places."""
