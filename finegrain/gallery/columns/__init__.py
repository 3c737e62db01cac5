"""Columns of a gallery in memory, so that a filter compares arrays instead of rows of SQL."""
