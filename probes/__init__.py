"""Imperative: what will run. Backbones, adapters, faces and the grid, on top of `record`."""
