"""Labels where the finalists disagree, on inputs that nobody has labelled."""
