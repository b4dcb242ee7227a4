"""What networks are trained to say, one a file."""
