"""Training: the loop, what it remembers, and how it comes back after being stopped at any moment."""
