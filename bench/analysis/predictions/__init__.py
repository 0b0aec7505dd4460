"""The stored predictions of a study as arrays: the module of a task reads its table."""
