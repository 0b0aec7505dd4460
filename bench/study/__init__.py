"""Studies: YAML to a validated `Study`."""
