"""Standing queries: which of the pictures that are added from now on fit a query."""
