"""The learner that all members of the DQN family share: `Agent(init, predict, judged, respond, learn)`, pure functions.

A variant is a head, a loss of one example (`algorithm`) and a memory (`replay`), chosen by `Config`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from dqn_jax.agent.algorithm import Prediction, Views
from dqn_jax.agent.algorithms import algorithm_for
from dqn_jax.agent.networks import make_network
from dqn_jax.agent.noisy import with_sigma
from dqn_jax.agent.optimizers import make_optimizer
from dqn_jax.agent.schedules import learning_rate_at
from dqn_jax.agent.targets import target_for
from dqn_jax.config import Config, HParams, check_optimizer
from dqn_jax.prng import make_key, random_index
from dqn_jax.types import Batch, EnvSpec, Key, Params, PyTree, Transition


class AgentState(NamedTuple):
    """All that learning carries on from one update to the next."""

    params: Params  # online network
    target_params: Params  # target network, or () without one
    opt_state: optax.OptState
    updates: jax.Array  # [], int32, updates made
    average_params: Params = ()  # their average over updates, see `average_decay`; () without

    @property
    def played(self) -> Params:
        """The weights that are evaluated, filmed and kept: their average where there is one, else the online ones."""
        return self.average_params or self.params


class UpdateInfo(NamedTuple):
    """Diagnostics of one update, means over the elements of its batch that count; nothing is carried on from them."""

    loss: jax.Array  # [], float32
    td_error: jax.Array  # [], float32, absolute TD error
    q_mean: jax.Array  # [], float32, Q-value of the action taken


class AgentInit(Protocol):
    """Fresh weights (the target network starts as a copy) and optimiser state."""

    def __call__(self, key: Key, hparams: HParams) -> AgentState: ...


class AgentPredict(Protocol):
    """What the network says of `obs` `[N, *obs_shape]`: leaves `[N, ...]`. `key` is for what head and layers draw."""

    def __call__(self, params: Params, obs: jax.Array, key: Key) -> Prediction: ...


class AgentRespond(Protocol):
    """Actions of an agent that learns, `[N]` int32, for `obs` `[N, *obs_shape]`; each row tosses its own coin.

    With probability epsilon an action is any; else it is the greatest Q-value's, or with a `temperature` (`[]`) drawn
    from the softmax of Q-values over it (Boltzmann exploration). `context` is what the agent itself carries from step
    to step, leaves `[N, ...]`: () unless it is recurrent.
    """

    def __call__(
        self,
        params: Params,
        context: PyTree,
        obs: jax.Array,
        epsilon: jax.Array | float,
        key: Key,
        temperature: jax.Array | float | None = None,
    ) -> tuple[PyTree, jax.Array]: ...


class AgentLearn(Protocol):
    """One gradient step on a batch, then the target network's move if it is due; also `[B]`, how far off each was.

    That is the TD error, or what the loss gives in its place: its size is the priority of a prioritised replay.

    Each loss is multiplied by its weight before their mean over the batch: with 0 an element is left out, and it
    counts in no diagnostic. The mean is over B all the same: with fewer elements the step is smaller.

    What heads draw comes from `key` and the number of updates made: one key may serve many updates in a row.
    """

    def __call__(
        self, state: AgentState, batch: Batch, hparams: HParams, key: Key
    ) -> tuple[AgentState, UpdateInfo, jax.Array]: ...


class Agent(NamedTuple):
    """An agent of the DQN family: pure functions, to be used under `jit`, `vmap` and `scan` as they are.

    Attributes:
      init: fresh weights.
      predict: what the network says while it learns, with the noise of noisy layers.
      judged: the same as evaluations and films have it: noisy layers take their mean weights, unless `eval_noise`.
      respond: actions while it learns.
      learn: one update.
    """

    init: AgentInit
    predict: AgentPredict
    judged: AgentPredict
    respond: AgentRespond
    learn: AgentLearn

    def act(self, params: Params, obs: jax.Array, epsilon: jax.Array | float, key: Key) -> jax.Array:
        """As `respond`, of an agent that carries nothing: actions `[N]` int32 for `obs` `[N, *obs_shape]`."""
        return self.respond(params, (), obs, epsilon, key)[1]

    def play(self, params: Params, obs: jax.Array, epsilon: jax.Array | float, key: Key) -> jax.Array:
        """Actions as evaluations choose them, `[N]` int32 for `obs` `[N, *obs_shape]`: epsilon-greedy by `judged`."""
        keys = ActKeys(*jax.random.split(key, len(ActKeys._fields)))
        return epsilon_greedy(self.judged(params, obs, keys.network).q_values, epsilon, keys)

    def update(
        self, state: AgentState, batch: Transition, hparams: HParams, weight: jax.Array | None = None
    ) -> tuple[AgentState, UpdateInfo]:
        """As `learn`, on transitions that nobody remembers (leaves `[B, ...]`; `weight` `[B]`, None for 1)."""
        nowhere = jnp.zeros(batch.r_t.shape, jnp.int32)
        return self.learn(state, Batch(batch, weight, nowhere), hparams, make_key(0))[:2]

    def q_values(self, params: Params, obs: jax.Array) -> jax.Array:
        """Q-values as evaluations have them, `[N, A]` float32, for `obs` `[N, *obs_shape]`.

        Heads that draw do so the same way every time.
        """
        return self.judged(params, obs, make_key(0)).q_values


class ActKeys(NamedTuple):
    """The keys of one time of acting."""

    coin: Key  # whether an action is any
    action: Key  # and which
    network: Key  # for what head and layers draw


def epsilon_greedy(
    q_values: jax.Array, epsilon: jax.Array | float, keys: ActKeys, otherwise: jax.Array | None = None
) -> jax.Array:
    """Actions `[N]` int32: any with probability epsilon, each row by its own coin, else `otherwise` (`[N]` int32).

    By default that is the action of the greatest of the `q_values` `[N, A]`.
    """
    rows, actions = q_values.shape
    if otherwise is None:
        otherwise = jnp.argmax(q_values, axis=-1).astype(jnp.int32)
    random = random_index(keys.action, (rows,), actions)
    return jnp.where(jax.random.uniform(keys.coin, (rows,)) < epsilon, random, otherwise)


def weights_of(params: Params) -> Params:
    """What of a network is learnt: all but the support that it keeps."""
    return {"params": params["params"]}


def averaged(average: Params, params: Params, updates: jax.Array, hparams: HParams) -> Params:
    """The average of the weights after one more update, leaves as those of `params`; () without `average_decay`.

    With `d` the decay and `t` the updates made, `average + (1 - min(d, t / (t + 3))) * (params - average)`: while it is
    young its window is a third of the updates made, so that the initial weights never count for much.

    Reference: Polyak & Juditsky 1992 (SIAM J. Control Optim. 30:838); the warm-up in the manner of TensorFlow's
    `ExponentialMovingAverage`, with 3 in place of its 10.
    """
    if hparams.average_decay is None:
        return ()
    made = updates.astype(jnp.float32)
    share = 1.0 - jnp.minimum(hparams.average_decay, made / (made + 3.0))
    return jax.tree.map(lambda mean, new: mean + share * (new - mean), average, params)


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """Build the agent for an environment.

    Args:
      config: algorithm, network, loss and optimiser (the static part; the traced part goes to `learn`).
      spec: of the environment; `make_env(config).spec`.

    Raises:
      ConfigError: if the network does not fit the observations, the algorithm refuses a setting, or there is no such
        optimiser.

    Reference: Mnih et al. 2015 (Nature 518:529), Algorithm 1; variants as cited in `algorithms` and `networks`.
    """
    check_optimizer(config.optimizer)
    algorithm = algorithm_for(config)
    network = make_network(config, spec, algorithm.head(config))
    example_loss = algorithm.loss(config, target_for(config, config))

    def predict(params: Params, obs: jax.Array, key: Key) -> Prediction:
        return network.apply(weights_of(params), obs, key, params.get("support", ()))  # type: ignore[return-value]

    def judged(params: Params, obs: jax.Array, key: Key) -> Prediction:
        support, noise = params.get("support", ()), config.eval_noise
        return network.apply(weights_of(params), obs, key, support, noise)  # type: ignore[return-value]

    def init(key: Key, hparams: HParams) -> AgentState:
        beside = {} if algorithm.support is None else {"support": algorithm.support(config, hparams)}
        obs = jnp.zeros((1, *spec.obs_shape), spec.obs_dtype)
        params: Params = network.init(key, obs, make_key(0), beside.get("support", ()))
        params = (with_sigma(params, hparams.noisy_sigma) if config.noisy else params) | beside
        # A copy, not an alias: the loop donates its state, and a buffer can be donated only once.
        target_params = jax.tree.map(jnp.copy, params) if config.target_network else ()
        opt_state = make_optimizer(config, hparams, 0.0).init(weights_of(params))
        average_params = () if hparams.average_decay is None else jax.tree.map(jnp.copy, params)
        return AgentState(params, target_params, opt_state, jnp.zeros((), jnp.int32), average_params)

    def respond(
        params: Params,
        context: PyTree,
        obs: jax.Array,
        epsilon: jax.Array | float,
        key: Key,
        temperature: jax.Array | float | None = None,
    ) -> tuple[PyTree, jax.Array]:
        drawn = None
        if temperature is not None:
            key, softmax_key = jax.random.split(key)
        keys = ActKeys(*jax.random.split(key, len(ActKeys._fields)))
        q_values = predict(params, obs, keys.network).q_values
        if temperature is not None:
            drawn = jax.random.categorical(softmax_key, q_values / temperature).astype(jnp.int32)
        return context, epsilon_greedy(q_values, epsilon, keys, drawn)

    def views_of(params: Params, target_params: Params, batch: Transition, key: Key) -> Views:
        """Leaves `[B, ...]`. Each view draws for itself; all but the first are constants for the gradient."""
        fixed = jax.lax.stop_gradient(params)
        target = target_params if config.target_network else fixed
        keys = jax.random.split(key, len(Views._fields))
        online_tm1 = predict(params, batch.obs_tm1, keys[0])
        target_tm1 = predict(target, batch.obs_tm1, keys[1])
        if not jax.tree.leaves(batch.obs_t):  # whole targets: what is multiplied by 0 may be anything that is there
            anything = jax.lax.stop_gradient(online_tm1)
            return Views(online_tm1, target_tm1, anything, anything)
        return Views(
            online_tm1=online_tm1,
            target_tm1=target_tm1,
            online_t=predict(fixed, batch.obs_t, keys[2]),
            target_t=predict(target, batch.obs_t, keys[3]),
        )

    def loss_fn(
        weights: Params, state: AgentState, batch: Batch, hparams: HParams, key: Key
    ) -> tuple[jax.Array, tuple[UpdateInfo, jax.Array]]:
        transition, weight = batch.transition, batch.weight
        transition = transition._replace(discount_t=transition.discount_t * hparams.discount)
        views = views_of(state.params | weights, state.target_params, transition, key)
        of_example = jax.vmap(lambda views, transition: example_loss(views, transition, hparams))
        loss, td_error, priority = of_example(views, transition)
        if weight is not None:
            loss = loss * weight
        q_a_tm1 = jnp.take_along_axis(views.online_tm1.q_values, transition.a_tm1[:, None], axis=-1)[:, 0]
        # One reduction for the three diagnostics: on CPU each small operation costs as much as a large one.
        if weight is None:
            diagnostics = jnp.mean(jnp.stack([loss, jnp.abs(td_error), q_a_tm1]), axis=1)
        else:
            sums = jnp.sum(jnp.stack([loss, weight * jnp.abs(td_error), weight * q_a_tm1]), axis=1)
            diagnostics = sums / jnp.maximum(jnp.sum(weight), 1.0)
        return jnp.mean(loss), (UpdateInfo(*diagnostics), td_error if priority is None else priority)

    def learn(state: AgentState, batch: Batch, hparams: HParams, key: Key) -> tuple[AgentState, UpdateInfo, jax.Array]:
        key, weights = jax.random.fold_in(key, state.updates), weights_of(state.params)
        gradient = jax.grad(loss_fn, has_aux=True)
        grads, (info, priority) = gradient(weights, state, batch, hparams, key)
        optimizer = make_optimizer(config, hparams, learning_rate_at(hparams, state.updates))
        steps, opt_state = optimizer.update(grads, state.opt_state, weights)
        weights = optax.apply_updates(weights, steps)
        params = state.params | weights
        updates = state.updates + 1
        target_params = state.target_params
        if config.target_network:
            # Arithmetic, not a branch: lanes may differ in period, and the select costs little.
            due = updates % hparams.target_period == 0
            mix = hparams.target_mixing
            target_params = target_params | jax.tree.map(
                lambda online, target: jnp.where(due, mix * online + (1.0 - mix) * target, target),
                weights,
                weights_of(target_params),
            )
        average_params = averaged(state.average_params, params, updates, hparams)
        return AgentState(params, target_params, opt_state, updates, average_params), info, priority

    return Agent(init, predict, judged, respond, learn)
