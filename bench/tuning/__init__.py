"""Tuning: how hyperparameters are chosen; the only user of Optuna."""
