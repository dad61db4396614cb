"""An encoder, tuned on this machine."""
