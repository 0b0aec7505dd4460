"""Tracking: the run store in MLflow, its address, its tables, runs under way, and the UI on it."""
