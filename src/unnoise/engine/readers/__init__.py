"""Readers of what other tools write into pictures and files: one file a tool, and one record for all."""
