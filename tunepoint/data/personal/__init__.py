"""Personal data in texts: found in linear time, and within a time budget."""
