"""Recipients' files: the bytes of a CSV into checked rows, or rejected ones with their reasons. Pure."""
