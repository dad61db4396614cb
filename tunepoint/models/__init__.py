"""Chat models. Each answers a `Prompt`; none of them knows about tasks or arms."""
