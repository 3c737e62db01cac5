"""The HTTP service: one process that owns a model and its gallery, and a page to search it.

The modules of :mod:`~finegrain.serve.routes` map requests to a
:class:`~finegrain.serve.collection.Collection`, whose :class:`~finegrain.serve.worker.Worker` runs
them, in one thread and in batches. :mod:`~finegrain.serve.app` puts the parts together.
"""

DEFAULT = "default"
"""Name of the only gallery of a service."""
