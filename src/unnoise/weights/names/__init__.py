"""Key tables, one part a file: the names that others give its weights, and what their config.json says of it."""
