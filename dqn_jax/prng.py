"""Random keys for the hot loop: threefry with its rounds (nearly) unrolled, bit for bit jax's own.

jax lowers threefry on CPU to a loop of tiny kernels, to compile faster. A training iteration draws ten times; the loops
cost more than the environment, replay and acting together. Unrolled, each draw is one fused kernel, on CPU two. Keys
made here work with everything in `jax.random`.
"""

from __future__ import annotations

import jax
import jax.extend.random as jex_random
import jax.numpy as jnp

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(key: jax.Array, count_high: jax.Array, count_low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds on arrays of counters (Salmon et al. 2011, section 3)."""
    k0, k1 = key[0], key[1]
    schedule = jnp.stack([k0, k1, k0 ^ k1 ^ jnp.uint32(0x1BD11BDA)] * 3)
    return jax.lax.platform_dependent(
        schedule, count_high + k0, count_low + k1, cpu=_rounds_in_two_trips, default=_rounds_unrolled
    )


def _rounds_unrolled(schedule: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0, x1 = _round(x0, x1, jnp.uint32(rotation))
        x0 = x0 + schedule[group + 1]
        x1 = x1 + schedule[group + 2] + jnp.uint32(group + 1)
    return x0, x1


def _rounds_in_two_trips(schedule: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Three groups of four rounds a trip, of which the sixth is thrown away.

    Half as many operations as `_rounds_unrolled` for XLA to compile and to fuse into their readers, and no slower:
    training programs compile in about half the time.
    """

    def trip(n: jax.Array, x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x0, x1 = x
        for own in range(3):
            before = x0, x1
            group = 3 * n + own
            for even, odd in zip(*_ROTATIONS, strict=True):
                x0, x1 = _round(x0, x1, jnp.where(group % 2 == 1, jnp.uint32(odd), jnp.uint32(even)))
            x0 = x0 + jax.lax.dynamic_index_in_dim(schedule, group + 1, keepdims=False)
            x1 = x1 + jax.lax.dynamic_index_in_dim(schedule, group + 2, keepdims=False) + (group + 1).astype(jnp.uint32)
        return jnp.where(n == 0, x0, before[0]), jnp.where(n == 0, x1, before[1])

    return jax.lax.fori_loop(0, 2, trip, (x0, x1))


def _round(x0: jax.Array, x1: jax.Array, rotation: jax.Array) -> tuple[jax.Array, jax.Array]:
    x0 = x0 + x1
    return x0, ((x1 << rotation) | (x1 >> (jnp.uint32(32) - rotation))) ^ x0


def _counts(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    size = 1
    for length in shape:
        size *= length
    if size >= 2**32:
        raise ValueError(f"one draw of {size} numbers is too large for this generator")
    low = jax.lax.iota(jnp.uint32, size).reshape(shape)
    return jnp.zeros_like(low), low


def _seed(seed: jax.Array) -> jax.Array:
    if seed.shape:
        raise TypeError("a seed is one integer")
    low = seed.astype(jnp.uint32)
    high = (seed >> 32).astype(jnp.uint32) if seed.dtype.itemsize > 4 else jnp.zeros((), jnp.uint32)
    return jnp.stack([high, low])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_threefry(key, *_counts(shape)), axis=-1)


def _fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
    seed = _seed(jnp.asarray(data, jnp.uint32))
    return jnp.stack(_threefry(key, seed[0], seed[1]))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    high, low = _threefry(key, *_counts(shape))
    if bit_width == 64:
        return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    bits = high ^ low
    return bits if bit_width == 32 else bits.astype(f"uint{bit_width}")


IMPL = jex_random.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_unrolled",
    tag="fryu",
)


def make_key(seed: int | jax.Array) -> jax.Array:
    """A typed key for `seed` (`[]` int); its streams equal those of `jax.random.key(seed)`."""
    return jax.random.key(seed, impl=IMPL)


def rolled(key: jax.Array) -> jax.Array:
    """The same key in jax's own form, whose draws are loops: for what many operations read.

    An unrolled draw is fused into each of its readers, for each of their elements: between noise of 8,000 weights that
    took minutes to compile and milliseconds to run.
    """
    return jax.random.wrap_key_data(jax.random.key_data(key), impl="threefry2x32")


def key_data(key: jax.Array) -> jax.Array:
    """The raw `[..., 2]` uint32 data of keys, for storage."""
    return jax.random.key_data(key)


def wrap_key_data(data: jax.Array) -> jax.Array:
    """Keys from `[..., 2]` uint32 data: the inverse of `key_data`."""
    return jax.random.wrap_key_data(data, impl=IMPL)


def random_index(key: jax.Array, shape: tuple[int, ...], bound: int | jax.Array) -> jax.Array:
    """Uniform integers in `[0, bound)`, int32, for `bound` in 1 to 2**31 - 1, static or traced.

    One draw and no division: the high word of `bits * bound` (Lemire 2019, arXiv 1805.10941, without the
    rejection; no index is more likely than another by more than `bound / 2**32`). `jax.random.randint`
    draws twice and divides, which took longer than gathering the batch.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    bound = jnp.asarray(bound).astype(jnp.uint32)
    bits_high, bits_low = bits >> jnp.uint32(16), bits & jnp.uint32(0xFFFF)
    bound_high, bound_low = bound >> jnp.uint32(16), bound & jnp.uint32(0xFFFF)
    # 32 x 32 bits in halves of 16, as 64-bit integers are off by default.
    middle = bits_high * bound_low + ((bits_low * bound_low) >> jnp.uint32(16))
    carry = (middle & jnp.uint32(0xFFFF)) + bits_low * bound_high
    return (bits_high * bound_high + (middle >> jnp.uint32(16)) + (carry >> jnp.uint32(16))).astype(jnp.int32)
