"""Reports: summaries to files that people read; nothing here reads the run store."""
