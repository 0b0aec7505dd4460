"""What a run is to get right: the module of a task has its loss, its scores and its table of predictions."""
