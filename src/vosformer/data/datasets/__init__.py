"""Data sets on disk: layouts, readers, checks."""
