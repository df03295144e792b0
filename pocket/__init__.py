"""The workshop: a procedural world, and the small models trained on it in published layouts."""
