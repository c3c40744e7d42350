"""The domain of Weir, free of I/O: device types, readings, channels, the lake's layout, rules.

Everything here takes data (and, where time matters, `now`) and returns values. Files, brokers and databases are
opened in `connections/` alone.
"""
