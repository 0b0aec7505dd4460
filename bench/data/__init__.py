"""Data: sources to decoded arrays, splits, views."""
