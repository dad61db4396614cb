"""Files that travel inside the report."""
