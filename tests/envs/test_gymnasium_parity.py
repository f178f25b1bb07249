"""Transition by transition against Gymnasium: same state, same action, same outcome."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dqn_jax.config import Config
from dqn_jax.envs import make_env
from dqn_jax.prng import make_key

SAMPLES = 500
BINS = 7

# Ranges of the state; within them some steps end the episode and some do not.
STATES = {
    "CartPole-v1": {"x": 2.4, "x_dot": 3.0, "theta": 0.209, "theta_dot": 3.0},
    "Pendulum-v1": {"theta": 6.0, "theta_dot": 8.0},
    "Acrobot-v1": {"joint_angle1": np.pi, "joint_angle2": np.pi, "velocity_1": 12.0, "velocity_2": 28.0},
    "MountainCar-v0": {"position": (-1.2, 0.6), "velocity": 0.07},
}
TOLERANCE = {  # of the observation after one step, float32 against float64
    "CartPole-v1": 1e-5,
    "Pendulum-v1": 1e-5,
    "Acrobot-v1": 2e-3,  # Runge-Kutta at speeds up to 28 rad/s multiplies the rounding
    "MountainCar-v0": 1e-6,
}


def config_of(name):
    return Config(env=name, action_bins=BINS if name == "Pendulum-v1" else None)


def to_gymnasium(name, action):
    return np.array([np.linspace(-2.0, 2.0, BINS)[action]], np.float32) if name == "Pendulum-v1" else int(action)


def random_states(name):
    rng = np.random.default_rng(0)
    ranges = {field: r if isinstance(r, tuple) else (-r, r) for field, r in STATES[name].items()}
    return {field: rng.uniform(low, high, SAMPLES).astype(np.float32) for field, (low, high) in ranges.items()}


@pytest.mark.parametrize("name", STATES)
def test_one_step_from_the_same_state_gives_the_same_transition(name):
    env = make_env(config_of(name))
    fields = random_states(name)
    actions = np.random.default_rng(1).integers(0, env.spec.num_actions, SAMPLES).astype(np.int32)
    state, _ = env.reset(make_key(0))

    def one(key, values, action):
        return env.advance(key, state._replace(inner=state.inner.replace(**values)), action)[1]

    out = jax.jit(jax.vmap(one))(jax.random.split(make_key(1), SAMPLES), fields, actions)

    reference = gymnasium.make(name).unwrapped
    reference.reset(seed=0)
    terminations = 0
    for i in range(SAMPLES):
        reference.state = np.array([values[i] for values in fields.values()], np.float64)
        reference.steps_beyond_terminated = None  # of CartPole, which warns after the end
        obs, reward, terminated, _, _ = reference.step(to_gymnasium(name, actions[i]))
        np.testing.assert_allclose(out.final_obs[i], obs, atol=TOLERANCE[name], rtol=TOLERANCE[name])
        np.testing.assert_allclose(out.reward[i], reward, atol=1e-5, rtol=1e-5)
        assert bool(out.terminated[i]) == terminated
        terminations += terminated
    assert not np.any(out.truncated)
    if name != "Pendulum-v1":  # both outcomes were seen
        assert 10 < terminations < SAMPLES - 10


def balance(obs):
    """Keeps CartPole up: push towards where the pole falls, and gently back to the middle."""
    return obs[2] + 0.3 * obs[3] + 0.02 * obs[0] + 0.08 * obs[1] > 0


CONTROLLERS = {  # that never reach a natural end
    "CartPole-v1": balance,
    "Pendulum-v1": lambda obs: 0,
    "Acrobot-v1": lambda obs: 1,  # no torque
    "MountainCar-v0": lambda obs: 1,  # no push
}


@pytest.mark.parametrize("name", STATES)
def test_the_time_limit_truncates_at_the_same_step(name):
    env, controller = make_env(config_of(name)), CONTROLLERS[name]
    reference = gymnasium.make(name)
    limit = reference.spec.max_episode_steps
    assert env.spec.max_episode_steps == limit
    reference_obs, _ = reference.reset(seed=0)
    state, _ = env.reset(make_key(0))
    values = zip(STATES[name], reference.unwrapped.state, strict=True)
    state = state._replace(inner=state.inner.replace(**{field: jnp.float32(value) for field, value in values}))

    @jax.jit
    def play(state, obs, keys):
        def body(carry, key):
            state, obs = carry
            state, out = env.step(key, state, jnp.asarray(controller(obs), jnp.int32))
            return (state, out.obs), out

        return jax.lax.scan(body, (state, obs), keys)[1]

    out = play(state, jnp.asarray(reference_obs), jax.random.split(make_key(1), limit + 3))
    for i in range(limit):
        step = reference.step(to_gymnasium(name, int(controller(reference_obs))))
        reference_obs, _, terminated, truncated, _ = step
        assert (bool(out.terminated[i]), bool(out.truncated[i])) == (terminated, truncated) == (False, i == limit - 1)
        if name in ("Pendulum-v1", "MountainCar-v0"):  # the other two multiply rounding errors
            np.testing.assert_allclose(out.final_obs[i], reference_obs, atol=2e-2)
    np.testing.assert_array_equal(out.episode_length, np.r_[np.arange(1, limit + 1), 1, 2, 3])


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0"])
def test_a_whole_random_episode_follows_gymnasium(name):
    env = make_env(config_of(name))
    reference = gymnasium.make(name)
    rng = np.random.default_rng(2)
    advance = jax.jit(env.advance)
    reference.reset(seed=3)
    state, _ = env.reset(make_key(0))
    values = reference.unwrapped.state
    state = state._replace(
        inner=state.inner.replace(**{f: jnp.float32(v) for f, v in zip(STATES[name], values, strict=True)})
    )
    total = 0.0
    for key in jax.random.split(make_key(1), 500):
        action = int(rng.integers(0, env.spec.num_actions))
        obs, reward, terminated, truncated, _ = reference.step(action)
        state, out = advance(key, state, jnp.int32(action))
        total += reward
        np.testing.assert_allclose(out.final_obs, obs, atol=1e-4)
        assert (bool(out.terminated), bool(out.truncated)) == (terminated, truncated)
        if terminated or truncated:
            break
    assert terminated or truncated
    assert float(out.episode_return) == total
