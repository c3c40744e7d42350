"""The embedded native stack: every server of Weir in a private prefix, without Docker or root."""
