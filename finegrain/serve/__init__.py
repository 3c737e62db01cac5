"""The HTTP service: one process that owns a model and its gallery, and a page to search it.

:mod:`~finegrain.serve.app` maps requests to a :class:`~finegrain.search.searcher.Searcher` and
:mod:`~finegrain.serve.worker` runs them, in one thread and in batches.
"""
