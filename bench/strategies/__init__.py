"""Strategies: one record for each way to transfer."""
