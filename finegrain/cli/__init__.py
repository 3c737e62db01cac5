"""The command line ``finegrain VERB ...``."""

from finegrain.cli.parser import main

__all__ = ["main"]
