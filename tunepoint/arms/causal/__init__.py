"""A causal language model, fine-tuned on this machine."""
