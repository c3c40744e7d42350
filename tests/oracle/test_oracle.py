"""The oracle on the hand-written cases, so that it is itself tested by something that is not an implementation."""
