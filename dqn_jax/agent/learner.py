"""The DQN family as three pure functions: `Agent(init, act, update)`.

A variant is a loss, a head and a replay, chosen by `Config`; there is one agent file.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from dqn_jax.agent import losses
from dqn_jax.agent.networks import QNetwork, choose_torso, smallest_image
from dqn_jax.agent.optimizers import make_optimizer
from dqn_jax.agent.schedules import learning_rate_at
from dqn_jax.config import Config, ConfigError, HParams, check_optimizer
from dqn_jax.prng import random_index
from dqn_jax.types import EnvSpec, Key, Params, Transition


class AgentState(NamedTuple):
    """All that learning carries on."""

    params: Params  # online network
    target_params: Params  # target network, or () without one
    opt_state: optax.OptState
    updates: jax.Array  # [], int32, updates made


class UpdateInfo(NamedTuple):
    """Diagnostics of one update, means over the elements of its batch that count; nothing is carried on from them."""

    loss: jax.Array  # [], float32
    td_error: jax.Array  # [], float32, absolute TD error
    q_mean: jax.Array  # [], float32, Q-value of the action taken


class AgentInit(Protocol):
    """Fresh weights (the target network starts as a copy) and optimiser state."""

    def __call__(self, key: Key, hparams: HParams) -> AgentState: ...


class AgentAct(Protocol):
    """Epsilon-greedy actions, `[N]` int32, for `obs` `[N, *obs_shape]`; each row tosses its own coin."""

    def __call__(self, params: Params, obs: jax.Array, epsilon: jax.Array | float, key: Key) -> jax.Array: ...


class AgentUpdate(Protocol):
    """One gradient step on a batch (leaves `[B, ...]`), then the target network's move if it is due.

    `weight` `[B]`, 0 or 1, multiplies each loss before their mean over the batch: with 0 an element is left out, and
    it counts in no diagnostic. The mean is over B all the same: with fewer elements the step is smaller.
    """

    def __call__(
        self, state: AgentState, batch: Transition, hparams: HParams, weight: jax.Array | None = None
    ) -> tuple[AgentState, UpdateInfo]: ...


class QValues(Protocol):
    """Q-values, `[N, num_actions]` float32, for `obs` `[N, *obs_shape]`."""

    def __call__(self, params: Params, obs: jax.Array) -> jax.Array: ...


class Agent(NamedTuple):
    """A DQN agent: pure functions, to be used under `jit`, `vmap` and `scan` as they are."""

    init: AgentInit
    act: AgentAct
    update: AgentUpdate
    q_values: QValues


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Build the agent for an environment.

    Args:
      config: network, loss and optimiser (the static part; the traced part goes to `update`).
      spec: of the environment; `make_env(config).spec`.

    Raises:
      ConfigError: if the network does not fit the observations, or there is no such optimiser.

    Reference: Mnih et al. 2015 (Nature 518:529), Algorithm 1; variants as cited in `losses` and `networks`.
    """
    check_optimizer(config.optimizer)
    torso = choose_torso(spec.obs_shape, spec.obs_dtype) if config.torso == "auto" else config.torso
    least = smallest_image(torso)
    if torso != "mlp" and (len(spec.obs_shape) not in (3, 4) or min(spec.obs_shape[:2]) < least):
        raise ConfigError(
            f"torso: '{torso}' needs [H, W, C] observations of at least {least}x{least}, and {spec.name} gives "
            f"{list(spec.obs_shape)}; use another torso, such as mlp."
        )
    network = QNetwork(
        spec.num_actions,
        torso,
        config.hidden,
        config.activation,
        config.dueling,
        config.weight_init,
        config.compute_dtype,
    )

    def q_values(params: Params, obs: jax.Array) -> jax.Array:
        return network.apply(params, obs)  # type: ignore[return-value]

    def init(key: Key, hparams: HParams) -> AgentState:
        params = network.init(key, jnp.zeros((1, *spec.obs_shape), spec.obs_dtype))
        # A copy, not an alias: the loop donates its state, and a buffer can be donated only once.
        target_params = jax.tree.map(jnp.copy, params) if config.target_network else ()
        opt_state = make_optimizer(config, hparams, 0.0).init(params)
        return AgentState(params, target_params, opt_state, jnp.zeros((), jnp.int32))

    def act(params: Params, obs: jax.Array, epsilon: jax.Array | float, key: Key) -> jax.Array:
        explore_key, action_key = jax.random.split(key)
        rows = obs.shape[0]
        greedy = jnp.argmax(q_values(params, obs), axis=-1).astype(jnp.int32)
        random = random_index(action_key, (rows,), spec.num_actions)
        return jnp.where(jax.random.uniform(explore_key, (rows,)) < epsilon, random, greedy)

    def loss_fn(
        params: Params, target_params: Params, batch: Transition, hparams: HParams, weight: jax.Array | None
    ) -> tuple[jax.Array, UpdateInfo]:
        discount_t = batch.discount_t * hparams.discount
        q_tm1 = q_values(params, batch.obs_tm1)
        q_t = q_values(target_params if config.target_network else params, batch.obs_t)
        if config.double:
            q_t_selector = q_values(params, batch.obs_t) if config.target_network else q_t
            td_error = jax.vmap(losses.double_q_learning)(q_tm1, batch.a_tm1, batch.r_t, discount_t, q_t, q_t_selector)
        else:
            td_error = jax.vmap(losses.q_learning)(q_tm1, batch.a_tm1, batch.r_t, discount_t, q_t)
        loss = losses.squared_loss(td_error)
        if config.loss == "huber":
            loss = losses.huber_loss(td_error, hparams.huber_delta)
        if weight is not None:
            loss = loss * weight
        q_a_tm1 = jnp.take_along_axis(q_tm1, batch.a_tm1[:, None], axis=-1)[:, 0]
        # One reduction for the three diagnostics: on CPU each small operation costs as much as a large one.
        if weight is None:
            diagnostics = jnp.mean(jnp.stack([loss, jnp.abs(td_error), q_a_tm1]), axis=1)
        else:
            sums = jnp.sum(jnp.stack([loss, weight * jnp.abs(td_error), weight * q_a_tm1]), axis=1)
            diagnostics = sums / jnp.maximum(jnp.sum(weight), 1.0)
        return jnp.mean(loss), UpdateInfo(*diagnostics)

    def update(
        state: AgentState, batch: Transition, hparams: HParams, weight: jax.Array | None = None
    ) -> tuple[AgentState, UpdateInfo]:
        grads, info = jax.grad(loss_fn, has_aux=True)(state.params, state.target_params, batch, hparams, weight)
        optimizer = make_optimizer(config, hparams, learning_rate_at(hparams, state.updates))
        steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, steps)
        updates = state.updates + 1
        target_params = state.target_params
        if config.target_network:
            # Arithmetic, not a branch: lanes may differ in period, and the select costs little.
            due = updates % hparams.target_period == 0
            mix = hparams.target_mixing
            target_params = jax.tree.map(
                lambda online, target: jnp.where(due, mix * online + (1.0 - mix) * target, target),
                params,
                target_params,
            )
        return AgentState(params, target_params, opt_state, updates), info

    return Agent(init, act, update, q_values)
