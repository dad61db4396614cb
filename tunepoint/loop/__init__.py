"""The improvement loop: serve, collect, tune, canary, promote, watch, and again."""
