"""Reading of files from elsewhere with a bound on memory and time."""
