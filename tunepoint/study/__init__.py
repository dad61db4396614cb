"""The main job: every arm on the same examples, decided."""
