"""Language models in GGUF files: which there are, how they come to this machine, and how they run."""
