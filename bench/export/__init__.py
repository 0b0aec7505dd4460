"""Export: a trained run as a model that others load."""
