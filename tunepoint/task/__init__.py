"""What is asked of arms: task.toml."""
