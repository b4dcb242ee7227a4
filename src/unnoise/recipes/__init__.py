"""Whole trainings, each a typed function: what it is called with is what can be set from the command line."""
