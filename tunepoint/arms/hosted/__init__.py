"""Models that are tuned at a provider."""
