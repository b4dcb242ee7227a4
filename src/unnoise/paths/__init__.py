"""Forward processes, one a file."""
