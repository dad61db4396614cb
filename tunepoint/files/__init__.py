"""Reading and writing of files: TOML, text, JSON, and the quantities in them."""
