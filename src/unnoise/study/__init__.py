"""Looking at what networks do, and measuring it."""
