"""Run folders: recipe, checkpoints, and the method they hold."""
