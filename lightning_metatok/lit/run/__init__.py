"""A run and its folder: who holds it, what is logged there, and the processes that share it."""
