"""Bytes that were changed here and there, the same ones every time, and what became of them."""

from __future__ import annotations

from collections import Counter

import numpy as np

import packbuf

WORDS = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x01\x00\x00\x80", b"-1", b"(9,)", b"0"]


def mutants(original: bytes, count: int, seed: int):
    """So many: each with one to four bytes or words changed, left out or repeated, or cut short."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        bad = bytearray(original)
        for _ in range(int(rng.integers(1, 5))):
            at, what = int(rng.integers(0, max(len(bad), 1))), rng.integers(0, 20)
            if what < 12 and bad:
                bad[at] ^= int(rng.integers(1, 256))
            elif what < 16:
                bad[at : at + 4] = WORDS[int(rng.integers(len(WORDS)))]
            elif what < 17:
                del bad[at : at + int(rng.integers(1, 9))]
            elif what < 18:
                bad[at:at] = bad[at : at + int(rng.integers(1, 9))]
            elif what < 19:
                del bad[at:]
        yield bytes(bad)


class Tally:
    """How many were refused, with which code, and how many were read."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.read = 0

    def of(self, read) -> object:
        """What `read` returns, or None where that is a packbuf.Error; any other exception is the test's end."""
        try:
            found = read()
        except packbuf.Error as error:
            assert error.code is not packbuf.Status.OK and error.message
            self.refused[error.code.name] += 1
            return None
        self.read += 1
        return found

    def check(self, read: int, refused: int, codes: int) -> None:
        """At least so many were read, refused, with so many different codes: else nothing was tried."""
        assert self.read >= read and self.refused.total() >= refused and len(self.refused) >= codes, (self.read, self.refused)
