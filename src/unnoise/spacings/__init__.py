"""Which levels a run visits, one rule a file."""
