"""Networks that read prompts and look at pictures, one a file."""
