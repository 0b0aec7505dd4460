"""Experiments: what runs where is decided here, and run."""
