"""Shared array containers. Every field says its shape; `N` is environments, `B` is batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

PyTree = Any  # a pytree of arrays
DType = Any  # what `jnp.dtype` takes
Key = jax.Array  # a typed PRNG key (jax.random.key), never raw uint32 data
Params = PyTree  # a pytree of network weights
Obs = jax.Array


class Transition(NamedTuple):
    """One step of experience, or a batch of them with a leading axis.

    `discount_t` is the environment's part of the discount only: 0 where the episode *terminated*, 1
    everywhere else, a time limit included. The agent multiplies it by its own discount.

    Where rewards are whole targets already, `discount_t` is 0 throughout and `obs_t` is (): nobody looks at it.
    """

    obs_tm1: jax.Array  # [..., *obs_shape], observation acted on
    a_tm1: jax.Array  # [...], int32, action taken
    r_t: jax.Array  # [...], float32, reward as learnt from (after scaling and clipping)
    discount_t: jax.Array  # [...], float32, 0 on termination, else 1
    obs_t: jax.Array  # [..., *obs_shape], true next observation, never one from after a reset


class Batch(NamedTuple):
    """What a memory gives to learn from: transitions, how much each counts, and where they are remembered."""

    transition: Transition  # leaves [B, ...]
    # [B], float32, factors of the losses: 0 where an element is no transition (its values then mean nothing), else 1,
    # or what corrects for draws that are not uniform. None where all count as 1.
    weight: jax.Array | None
    place: jax.Array  # [B], int32, places in the memory, row * N + environment


class TransitionRow(NamedTuple):
    """One vector step of environments on the device."""

    transition: Transition  # leaves [N, ...]
    ended: jax.Array  # [N], bool, an episode ended with it, by termination or at a time limit


class FrameRow(NamedTuple):
    """One vector step of a pool of environments: what each showed, and the action that was chosen on seeing it.

    A pool resets in the step after the end of an episode: the row that follows is `first`, the action before it
    was ignored and its reward is 0, so that no transition leads into it. `first` alone says where episodes
    begin: a lost life may be `terminated` with the game going on.
    """

    frame: jax.Array  # [N, *frame_shape], newest frame alone (a whole observation where nothing is stacked)
    action: jax.Array  # [N], int32, chosen on seeing this row
    reward: jax.Array  # [N], float32, what came with this row: for the action of the row before
    terminated: jax.Array  # [N], bool, the bootstrap stops at this row: game over, or a lost life
    truncated: jax.Array  # [N], bool, a time limit ended the episode at this row: the bootstrap goes on
    first: jax.Array  # [N], bool, this row begins an episode


class EnvOutput(NamedTuple):
    """What one environment step gives the loop, the same for every kind of environment.

    Shapes are those of one environment; the loops add `N` by `vmap`.
    """

    obs: jax.Array  # [*obs_shape], observation to act on next (after a reset, the new episode's)
    final_obs: jax.Array  # [*obs_shape], observation this step led to, before any reset
    reward: jax.Array  # [], float32, as learnt from
    terminated: jax.Array  # [], bool, the task ended: the bootstrap stops here
    truncated: jax.Array  # [], bool, a time limit ended the episode: the bootstrap goes on
    episode_return: jax.Array  # [], float32, raw return of the episode so far, this step included
    episode_length: jax.Array  # [], int32, environment frames of the episode so far


class EnvSpec(NamedTuple):
    """Static facts about an environment, known before anything runs."""

    name: str
    obs_shape: tuple[int, ...]
    obs_dtype: DType
    num_actions: int
    max_episode_steps: int  # in environment frames


def to_transition(obs_tm1: Obs, a_tm1: jax.Array, out: EnvOutput) -> Transition:
    """The transition that a step made. Truncation keeps `discount_t` at 1 and the true final observation."""
    return Transition(
        obs_tm1=obs_tm1,
        a_tm1=a_tm1,
        r_t=out.reward,
        discount_t=1.0 - out.terminated.astype("float32"),
        obs_t=out.final_obs,
    )


def to_row(obs_tm1: Obs, a_tm1: jax.Array, out: EnvOutput) -> TransitionRow:
    """The row that a vector step made (leaves `[N, ...]`)."""
    return TransitionRow(to_transition(obs_tm1, a_tm1, out), out.terminated | out.truncated)
