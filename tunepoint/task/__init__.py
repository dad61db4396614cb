"""The task: what to do, how to score it, and what it may cost, as task.toml declares it."""
