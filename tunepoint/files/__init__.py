"""How files are read and written."""
