"""Imperative: what will run. Backbones, adapters, faces, and the grid of samples, on top of `hooks.record`."""
