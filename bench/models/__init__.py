"""Models: libraries, weights, stages, frozen prefixes, heads, and the model of a run."""
