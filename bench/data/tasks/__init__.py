"""Where a task's data come from: the module of its name opens a target as a decoded data set."""
