"""Who we ask. Each model answers a `Prompt`; none of them knows about arms."""
