"""The verbs of `octavo` that need Python: `octavo <verb>` runs the program `octavo-<verb>`."""
