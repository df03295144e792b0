"""A run in the browser, sample by sample and step by step: `python -m analysis.explore run.zarr`.

Reading needs neither torch nor diffusers.
"""
