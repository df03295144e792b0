"""A benchmark with known truth: how well each method finds where identity was planted."""
