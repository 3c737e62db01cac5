"""A gallery in one SQLite file, with its index in memory."""
