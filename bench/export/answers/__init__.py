"""What a model says of one picture: the module of a task makes it of probabilities."""
