"""Must: laws that the rest keeps. `tests/bench` measures."""
