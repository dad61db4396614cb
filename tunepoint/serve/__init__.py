"""The winner behind an OpenAI-compatible endpoint."""
