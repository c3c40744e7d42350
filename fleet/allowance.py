"""How much one sender may send: a bucket that fills evenly. Pure; the clock is passed in."""


class Allowance:
    """`per_second` on average, at most `burst` at once. Not thread-safe."""

    __slots__ = ("_at", "_left")

    def __init__(self, burst: float, now: float):
        self._left, self._at = burst, now

    def take(self, wanted: int, per_second: float, burst: float, now: float) -> float:
        """0: it may. Else the seconds after which it may ask again; nothing was taken."""
        self._left = min(burst, self._left + (now - self._at) * per_second)
        self._at = now
        if wanted <= self._left:
            self._left -= wanted
            return 0.0
        return (wanted - self._left) / per_second
