"""A second implementation of RULES.md, written from its text alone: slow, plain, and compared with `fleet`'s."""
