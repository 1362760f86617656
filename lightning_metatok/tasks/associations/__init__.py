"""Tasks whose answer is looked up by way of other answers: hops, and values that are given anew."""
