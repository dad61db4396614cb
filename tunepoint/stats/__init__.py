"""Pure functions on arrays. Nothing here knows what an arm is."""
