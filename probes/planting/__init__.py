"""Organisms: pipelines in which it is known where the identity enters, because it was planted there."""
