"""Filters: the meaning of an expression, and its compilation to SQL and to Milvus."""
