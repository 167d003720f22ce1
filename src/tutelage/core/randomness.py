"""Random numbers as a function of a key, and of nothing else.

A sample's crop, a walk's next step, a batch's dropout: each draws from a generator made from what names it
(seed, view, sample id). No state is carried, so neither the worker, the rank nor what ran before can change it.
"""

import hashlib

import numpy as np


def seed_of(*key: int | str) -> int:
    """Hash a key to 63 bits, the same on every machine and in every process."""
    # The type is part of the text: 1 and "1" are different keys.
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*key: int | str) -> np.random.Generator:
    """Make the generator that belongs to a key, such as ``generator(seed, view, sample_id)``."""
    return np.random.Generator(np.random.Philox(seed_of(*key)))
