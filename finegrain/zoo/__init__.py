"""Published models: the names that ``pull`` knows, their files, and the layouts of their weights.

This file imports nothing, so that the modules which need no torch can be used without it.
"""
