"""The machine: files, locks, signals, processors."""
