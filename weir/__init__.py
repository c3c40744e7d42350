"""The command line. One module per group of commands; the work is done in the packages below."""
