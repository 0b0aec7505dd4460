"""Study records: what a study keeps in the run store for its report."""
