"""Names of what the runs of edited samples hold, for those who read them without the models."""

GROUP = "interventions"
"""The folder in a run that holds its causal studies."""
CLAMPED = "clamped_x0"
ANCHOR = "anchor"
"""The part of the samples that nothing is done to: what the effects are counted from and to."""
ACTIVATIONS = "activations"
"""The folder in a causal study that holds what its directions are learned from."""
