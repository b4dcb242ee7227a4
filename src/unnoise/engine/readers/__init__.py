"""Readers of the settings that other tools write into pictures and files: one file a tool, one record for all."""
