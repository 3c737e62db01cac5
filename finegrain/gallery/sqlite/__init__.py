"""Storage of a gallery in one SQLite file, with an index in memory."""
