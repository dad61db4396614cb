"""The gateway: arms behind an OpenAI-compatible endpoint, with routes, canaries, keys and capture."""
