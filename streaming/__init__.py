"""The services that never sleep: bridge, landing, live."""
