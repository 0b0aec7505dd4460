"""Models: architectures, weights, stages, heads."""
