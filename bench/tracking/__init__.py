"""Tracking: the run store; the only user of MLflow."""
