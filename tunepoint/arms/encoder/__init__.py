"""An encoder, tuned on this machine: it classifies, or finds fields in its inputs."""
