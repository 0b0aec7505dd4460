"""Training: arrays and a model in, trained weights and scores out; all torch code that trains."""
