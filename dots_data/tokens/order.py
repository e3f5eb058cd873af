"""The order of reading as a function: a keyed bijection of [0, n), and keyed hashes of document ids.

A shuffle that is a function needs no permutation in memory and no file: any process can compute which window
stands at place g. The bijection is an alternating Feistel network (Black and Rogaway, "Ciphers with Arbitrary
Finite Domains", CT-RSA 2002) over Z_a x Z_b with a * b barely above n, made exact by cycle walking. Keys come
from BLAKE2b. Standard library and NumPy only; the same numbers on every machine and in every process.
"""

from __future__ import annotations

import hashlib
import math
from typing import overload

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

LARGEST = 2**62
ROUNDS = 8


def key(*parts: int | str | bytes) -> bytes:
    """32 bytes of key from a seed, an epoch, a purpose: any parts, told apart by type and length."""
    digest = hashlib.blake2b(digest_size=32, person=b"dots.order.v1")
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{type(part).__name__}:{len(data)}:".encode())
        digest.update(data)
    return digest.digest()


def keyed_hashes(ids: U64, hash_key: bytes) -> U64:
    """64 bits for each document id of 16 bytes, given as two big-endian numbers (n, 2); `hash_key` comes from
    `key(seed, purpose)`. Well mixed, not secret: whoever writes an id can choose its place."""
    first, second, third, _ = np.frombuffer(hash_key, dtype="<u8").astype(np.uint64)
    return _mix(_mix(_mix(ids[:, 0] ^ first) + ids[:, 1] ^ second) ^ third)


class Bijection:
    """A keyed bijection of [0, n): `self(place)` is what stands at a place, `inverse` finds the place again.

    Integers and int64 arrays give the same values, by the same code. Expected cost: `ROUNDS` rounds, and a
    second walk for one in about sqrt(n) places.

    Raises:
        ValueError: n is not within 1 and 2**62.
    """

    def __init__(self, n: int, order_key: bytes) -> None:
        if not 1 <= n <= LARGEST:
            raise ValueError(f"an order is over 1 to 2**62 places, not {n}")
        self.n = n
        self._a = math.isqrt(n - 1) + 1
        self._b = -(-n // self._a)
        stream = hashlib.blake2b(order_key, digest_size=8 * ROUNDS, person=b"dots.rounds.v1").digest()
        self._keys = np.frombuffer(stream, dtype="<u8").astype(np.uint64)

    @overload
    def __call__(self, place: int) -> int: ...
    @overload
    def __call__(self, place: I64) -> I64: ...
    def __call__(self, place: int | I64) -> int | I64:
        """What stands at `place` (an integer, or an array of any shape). Raises IndexError outside [0, n)."""
        return self._walk(place, self._forward)

    @overload
    def inverse(self, item: int) -> int: ...
    @overload
    def inverse(self, item: I64) -> I64: ...
    def inverse(self, item: int | I64) -> int | I64:
        """The place at which `item` stands. Raises IndexError outside [0, n)."""
        return self._walk(item, self._backward)

    def _walk(self, start: int | I64, step: object) -> int | I64:
        assert callable(step)
        array = np.asarray(start, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.n):
            raise IndexError(f"place outside [0, {self.n})")
        values: U64 = step(array.reshape(-1).astype(np.uint64))
        # A permutation of [0, a*b) restricted to [0, n): those that fall outside walk on until they return.
        outside = np.flatnonzero(values >= np.uint64(self.n))
        while outside.size:
            values[outside] = step(values[outside])
            outside = outside[values[outside] >= np.uint64(self.n)]
        walked = values.astype(np.int64).reshape(array.shape)
        return int(walked) if isinstance(start, (int, np.integer)) else walked

    def _forward(self, values: U64) -> U64:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = values % a, values // a
        for number, round_key in enumerate(self._keys):
            if number % 2 == 0:
                left = (left + _mix(right ^ round_key) % a) % a
            else:
                right = (right + _mix(left ^ round_key) % b) % b
        return left + right * a

    def _backward(self, values: U64) -> U64:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = values % a, values // a
        for number in reversed(range(ROUNDS)):
            if number % 2 == 0:
                left = (left + a - _mix(right ^ self._keys[number]) % a) % a
            else:
                right = (right + b - _mix(left ^ self._keys[number]) % b) % b
        return left + right * a


def epoch_order(n: int, seed: int, epoch: int, stream: str = "") -> Bijection:
    """The order of `n` windows in one epoch: another permutation for each (seed, epoch, stream)."""
    return Bijection(n, key("windows", seed, epoch, *([stream] if stream else [])))


def _mix(values: U64) -> U64:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): all bits depend on all bits."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
