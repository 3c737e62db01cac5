"""Filters: the meaning of an expression, and its compilation to SQL and to Milvus.

:mod:`finegrain.gallery.columns` evaluates filters over columns in memory.
"""
