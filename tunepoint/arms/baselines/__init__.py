"""Controls without a language model: what prompting and tuning have to beat."""
