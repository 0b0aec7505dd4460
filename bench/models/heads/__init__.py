"""What replaces the source's classifier."""
