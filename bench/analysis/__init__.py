"""Analysis: tables to statistics; no torch, no files."""
