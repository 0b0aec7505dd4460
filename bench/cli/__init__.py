"""The command line: options, printing, exit status; no logic."""
