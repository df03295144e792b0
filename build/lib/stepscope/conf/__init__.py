"""Nouns: every choice of a run has a name here. YAML alone."""
