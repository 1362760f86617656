"""Tasks about strings: copy, turn round, sort, count; those of the NoPE study and of location attention."""
