"""Export: a trained run as a model that others load, and what it says of pictures."""
