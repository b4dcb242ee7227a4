"""What the output of a network means, one a file."""
