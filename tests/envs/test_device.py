"""What every on-device environment promises: endings, resets, rewards, options, names."""

from __future__ import annotations

import functools
import math

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes  # noqa: F401 - registers the probe environments
import pytest

from dqn_jax.config import Config, ConfigError, HParams, validate
from dqn_jax.envs import env_names, make_env, resolve_env
from dqn_jax.prng import make_key
from dqn_jax.types import to_transition

NAMES = [name for name in env_names() if not name.startswith("Probe")]
CONTINUOUS = ("Pendulum-v1", "MountainCarContinuous-v0")


@functools.cache
def player(config):
    """The environment and a jitted `(seed, actions [T]) -> (states, outputs)`, leaves `[T, ...]`."""
    env = make_env(config)

    @jax.jit
    def play(seed, actions):
        reset_key, step_key = jax.random.split(make_key(seed))
        state, obs = env.reset(reset_key)

        def body(carry, x):
            state, obs = carry
            state, out = env.step(x[0], state, x[1])
            return (state, out.obs), (state, out, to_transition(obs, x[1], out))

        return jax.lax.scan(body, (state, obs), (jax.random.split(step_key, len(actions)), actions))[1]

    return env, lambda seed, actions: jax.device_get(play(jnp.int32(seed), jnp.asarray(actions, jnp.int32)))


# -- how episodes end


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_time_limit_keeps_the_bootstrap_and_the_true_last_observation(name):
    config = Config(env=name, max_episode_steps=5, action_bins=3 if name == "Pendulum-v1" else None)
    env, play = player(config)
    actions = [0, 1, 0, 1, 0, 1, 0, 1]
    states, out, transition = play(0, actions)
    np.testing.assert_array_equal(out.truncated, [False] * 4 + [True] + [False] * 3)
    assert not np.any(out.terminated)
    np.testing.assert_array_equal(transition.discount_t, np.ones(8))
    # The observation that the limit cut off is what the physics give, not what the reset gave.
    action = jnp.linspace(-2.0, 2.0, 3)[actions[4]].reshape(1) if name == "Pendulum-v1" else actions[4]
    before = jax.tree.map(lambda x: x[3], states.inner)
    expected, *_ = jax.jit(env.inner.step_env)(make_key(9), before, action, env.inner_params)
    np.testing.assert_allclose(out.final_obs[4], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(transition.obs_t[4], out.final_obs[4])
    assert not np.allclose(out.obs[4], out.final_obs[4], atol=1e-4)
    # Anywhere else the two are one, and each transition starts where the loop's last observation was.
    others = np.arange(8) != 4
    np.testing.assert_array_equal(out.obs[others], out.final_obs[others])
    np.testing.assert_array_equal(transition.obs_tm1[1:], out.obs[:-1])


def test_termination_ends_the_bootstrap_and_starts_afresh():
    _, play = player(Config())
    states, out, transition = play(0, [1] * 40)  # always to the right: the pole falls after 9 to 11 steps
    falls = np.flatnonzero(out.terminated)
    assert len(falls) >= 3
    assert not np.any(out.truncated)
    np.testing.assert_array_equal(transition.discount_t, np.where(out.terminated, 0.0, 1.0))
    assert np.all(np.abs(out.final_obs[falls, 2]) > 12 * np.pi / 180)
    assert np.all(np.abs(out.obs[falls]) <= 0.05)  # CartPole starts within 0.05 of upright
    assert len(np.unique(out.obs[falls, 0])) == len(falls)  # with a new draw every time
    np.testing.assert_array_equal(states.inner.time[falls], 0)
    np.testing.assert_array_equal(states.episode_length[falls], 0)
    np.testing.assert_array_equal(states.episode_return[falls], 0.0)


def test_a_fall_on_the_last_step_allowed_is_a_termination():
    _, play = player(Config())
    first_fall = int(np.flatnonzero(play(0, [1] * 40)[1].terminated)[0])
    _, capped = player(Config(max_episode_steps=first_fall + 1))
    _, out, transition = capped(0, [1] * (first_fall + 1))
    assert (bool(out.terminated[-1]), bool(out.truncated[-1])) == (True, False)
    assert transition.discount_t[-1] == 0.0


def test_learnt_rewards_are_shifted_then_replaced_at_an_end_then_scaled():
    _, play = player(Config(reward_shift=-0.75, terminal_reward=-1.0, reward_scale=2.0))
    _, out, transition = play(0, [1] * 40)
    assert out.terminated.any()
    np.testing.assert_array_equal(transition.r_t, np.where(out.terminated, -2.0, 0.5))
    assert float(np.max(out.episode_return)) > 5  # logged returns stay raw


def test_episode_return_and_length_are_raw_and_of_one_episode():
    _, play = player(Config(terminal_reward=-7.0, reward_scale=0.5, reward_clip=2.0))
    _, out, _ = play(0, [1] * 40)
    expected = 0
    for i in range(40):
        expected += 1
        assert (float(out.episode_return[i]), int(out.episode_length[i])) == (expected, expected)
        expected = 0 if out.terminated[i] else expected
    np.testing.assert_array_equal(out.reward, np.where(out.terminated, -2.0, 0.5))  # -7 * 0.5, clipped to -2


def test_advance_does_not_reset():
    env, _ = player(Config(max_episode_steps=2))
    state, _ = env.reset(make_key(0))
    advance = jax.jit(env.advance)
    lengths = []
    for key in jax.random.split(make_key(1), 4):
        state, out = advance(key, state, jnp.int32(0))
        np.testing.assert_array_equal(out.obs, out.final_obs)
        lengths.append((int(out.episode_length), bool(out.truncated)))
    assert lengths == [(1, False), (2, True), (3, True), (4, True)]


def test_cartpole_v0_is_cartpole_v1_with_200_steps():
    env = make_env(Config(env="CartPole-v0"))
    assert env.spec.max_episode_steps == 200
    assert env.inner_params.max_steps_in_episode == 200
    assert make_env(Config(env="CartPole-v0", max_episode_steps=7)).spec.max_episode_steps == 7
    assert make_env(Config(env="CartPole-v1")).spec.max_episode_steps == 500


# -- rewards


def test_terminal_reward_is_for_terminations_only():
    config = Config(terminal_reward=-100.0, max_episode_steps=3)
    _, out, _ = player(config)[1](0, [1] * 9)
    assert np.all(out.truncated[[2, 5, 8]])
    np.testing.assert_array_equal(out.reward, np.ones(9))  # the limit came first, always
    _, out, _ = player(Config(terminal_reward=-100.0))[1](0, [1] * 30)
    np.testing.assert_array_equal(out.reward, np.where(out.terminated, -100.0, 1.0))
    assert np.any(out.terminated)


def test_scale_and_clip_apply_to_the_learnt_reward_alone():
    plain = Config(env="Pendulum-v1", action_bins=3)
    _, raw, _ = player(plain)[1](0, [0] * 50)
    _, out, _ = player(Config(env="Pendulum-v1", action_bins=3, reward_scale=0.1, reward_clip=0.6))[1](0, [0] * 50)
    expected = np.clip(np.float64(raw.reward) * 0.1, -0.6, 0.6)
    np.testing.assert_allclose(out.reward, expected, rtol=1e-6)
    assert np.any(expected == -0.6)
    assert np.any(expected > -0.6)
    np.testing.assert_array_equal(out.episode_return, raw.episode_return)
    np.testing.assert_allclose(raw.episode_return, np.cumsum(raw.reward), rtol=1e-4)


# -- options


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    config = Config(env="Pendulum-v1", action_bins=3, action_repeat=4, max_episode_steps=10)
    _, play = player(config)
    _, frames = player(Config(env="Pendulum-v1", action_bins=3, max_episode_steps=10))
    _, out, transition = play(0, [2, 0, 2, 1])
    _, one, _ = frames(0, [2, 2, 2, 2, 0, 0, 0, 0, 2, 2])  # the same ten frames, one by one
    np.testing.assert_array_equal(out.truncated, [False, False, True, False])
    np.testing.assert_array_equal(out.episode_length, [4, 8, 10, 4])
    np.testing.assert_allclose(
        out.reward[:3], [one.reward[:4].sum(), one.reward[4:8].sum(), one.reward[8:10].sum()], rtol=1e-5
    )
    np.testing.assert_allclose(out.final_obs[:3], one.final_obs[[3, 7, 9]], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(transition.discount_t, np.ones(4))


def test_action_repeat_stops_at_a_termination():
    _, play = player(Config(env="ProbeLengths-test", action_repeat=4))
    states, out, transition = play(0, [0] * 30)  # a frame too many would cost 100
    ends = np.asarray(out.terminated)
    hidden = np.asarray(out.final_obs[:, 0])
    np.testing.assert_array_equal(out.episode_length[ends], hidden[ends])
    np.testing.assert_array_equal(out.episode_return[ends], hidden[ends])
    assert np.all(out.reward[ends] == np.where(hidden[ends] > 4, hidden[ends] - 4, hidden[ends]))
    assert len(np.unique(hidden[ends])) >= 4
    np.testing.assert_array_equal(transition.discount_t, 1.0 - ends)
    np.testing.assert_array_equal(states.episode_length[ends], 0)


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_sticky_actions_repeat_the_last_action_with_their_probability(probability):
    env = make_env(Config(env="ProbeAction-test", sticky_actions=probability))
    state, _ = env.reset(make_key(0))  # whose last action is 0; action 1 pays 1, action 0 costs 1
    keys = jax.random.split(make_key(1), 4000)
    _, out = jax.jit(jax.vmap(env.step, (0, None, None)))(keys, state, jnp.int32(1))
    assert abs(np.mean(out.reward == -1.0) - probability) < 0.03  # 4 sigma at 0.25


def test_without_sticky_actions_every_action_is_taken():
    env = make_env(Config(env="ProbeAction-test"))
    state, _ = env.reset(make_key(0))
    _, out = jax.vmap(env.step, (0, None, None))(jax.random.split(make_key(1), 50), state, jnp.int32(1))
    np.testing.assert_array_equal(out.reward, np.ones(50))


@pytest.mark.parametrize(("name", "high"), [("Pendulum-v1", 2.0), ("MountainCarContinuous-v0", 1.0)])
def test_action_bins_are_evenly_spaced_and_include_both_ends(name, high):
    env = make_env(Config(env=name, action_bins=5))
    assert env.spec.num_actions == 5
    state, _ = env.reset(make_key(0))
    one_step = jax.jit(lambda action: env.advance(make_key(1), state, action)[1])
    action_values = high * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    rewards = np.array([one_step(jnp.int32(i)).reward for i in range(5)])
    # Torque costs 0.001 u^2 in Pendulum and force 0.1 u^2 in MountainCarContinuous.
    cost = 0.001 if name == "Pendulum-v1" else 0.1
    np.testing.assert_allclose(rewards[2] - rewards, cost * action_values**2, atol=1e-5)
    if name == "Pendulum-v1":
        torques = [env.advance(make_key(1), state, jnp.int32(i))[0].inner.last_u for i in range(5)]
        np.testing.assert_allclose(torques, action_values)
    speeds = [float(one_step(jnp.int32(i)).final_obs[-1]) for i in range(5)]
    np.testing.assert_allclose(np.diff(speeds), np.full(4, speeds[1] - speeds[0]), rtol=1e-3)
    assert speeds[1] > speeds[0]


def test_action_bins_fit_the_action_space_or_are_refused():
    with pytest.raises(ConfigError, match=r"action_bins.*continuous"):
        make_env(Config(env="Pendulum-v1"))
    with pytest.raises(ConfigError, match=r"action_bins.*2 discrete"):
        make_env(Config(env="CartPole-v1", action_bins=3))


# -- names and parameters


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("cartpole-V1", "CartPole-v1"),
        ("CARTPOLE", "CartPole-v1"),
        ("cartpole-v0", "CartPole-v0"),
        ("mountaincar", "MountainCar-v0"),
        ("breakout-minatar", "Breakout-MinAtar"),
        ("deepsea", "DeepSea-bsuite"),
    ],
)
def test_case_and_a_missing_suffix_do_not_matter(written, name):
    assert resolve_env(written) == name
    assert name in NAMES


@pytest.mark.parametrize(
    ("written", "near"), [("CartPol-v1", "CartPole-v1"), ("brekout", "Breakout"), ("Pendulum-v9", "Pendulum-v1")]
)
def test_unknown_name_suggests_the_nearest(written, near):
    with pytest.raises(ConfigError, match=rf"env.*'{written}'.*Did you mean '{near}"):
        make_env(Config(env=written))


@pytest.mark.parametrize("name", ["Reacher-misc", "Swimmer-misc", "PointRobot-misc", "MNISTBandit-bsuite"])
def test_what_cannot_work_is_refused_with_a_reason_and_not_listed(name):
    assert name not in env_names()
    with pytest.raises(ConfigError, match=f"env: '{name}' cannot be used here"):
        make_env(Config(env=name))


def test_all_other_registered_environments_are_listed():
    refused = {"Reacher-misc", "Swimmer-misc", "PointRobot-misc", "MNISTBandit-bsuite"}
    assert set(env_names()) == (set(gymnax.registered_envs) - refused) | {"CartPole-v0"}


def test_parameters_reach_the_physics():
    light, heavy = (make_env(Config(env_params=(("gravity", g),))) for g in (1.0, 30.0))
    state, _ = light.reset(make_key(0))
    speed = [env.advance(make_key(1), state, jnp.int32(1))[1].final_obs[3] for env in (light, heavy)]
    assert not np.isclose(*speed, rtol=1e-4)


def test_derived_parameters_of_cartpole_follow_the_ones_changed():
    params = make_env(Config(env_params=(("length", 0.7), ("masscart", 2.0)))).inner_params
    assert params.polemass_length == pytest.approx(0.1 * 0.7)
    assert params.total_mass == pytest.approx(2.1)
    params = make_env(Config(env_params=(("length", 0.7), ("total_mass", 5.0)))).inner_params
    assert params.total_mass == 5.0


def test_constructor_options_are_parameters_too():
    assert make_env(Config(env="Breakout-MinAtar")).spec.num_actions == 3
    full = make_env(Config(env="Breakout-MinAtar", env_params=(("use_minimal_action_set", 0),)))
    assert full.spec.num_actions == 6
    sea = make_env(Config(env="DeepSea-bsuite", env_params=(("size", 5.0),)))
    assert sea.spec.obs_shape == (5, 5)
    assert sea.spec.max_episode_steps == 5


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (("gravty", 9.0), r"env_params.*no parameter 'gravty'.*Did you mean 'gravity'.*It has:.*length"),
        (("gravity", float("nan")), r"env_params: gravity is nan"),
        (("max_steps_in_episode", 10), r"env_params.*max_episode_steps"),
    ],
)
def test_bad_parameters_are_refused(parameter, message):
    with pytest.raises(ConfigError, match=message):
        make_env(Config(env_params=(parameter,)))


# -- every environment


@pytest.mark.parametrize("name", NAMES)
def test_every_environment_steps_with_stable_types_and_lossless_observations(name):
    config = Config(env=name, action_bins=3 if name in CONTINUOUS else None)
    env = make_env(config)
    spec = env.spec
    assert spec.name == name
    assert spec.max_episode_steps >= 1

    def play(seed):
        reset_key, action_key, step_key = jax.random.split(make_key(seed), 3)
        actions = jax.random.randint(action_key, (40,), 0, spec.num_actions)

        def body(state, x):  # scan refuses a carry that changes its types
            state, out = env.step(x[0], state, x[1])
            shown = env.inner.observe(make_key(0), state.inner, None, env.inner_params)
            return state, (out, shown)

        state, obs = env.reset(reset_key)
        return obs, *jax.lax.scan(body, state, (jax.random.split(step_key, 40), actions))[1]

    # Compiling takes far longer than these few steps, so not too well.
    obs, out, shown = jax.jit(play, compiler_options={"xla_backend_optimization_level": 0})(jnp.int32(0))
    assert (obs.shape, obs.dtype) == (spec.obs_shape, spec.obs_dtype)
    for field in (out.obs, out.final_obs):
        assert (field.shape, field.dtype) == ((40, *spec.obs_shape), spec.obs_dtype)
        assert np.all(np.isfinite(field))
    dtypes = [out.reward, out.terminated, out.truncated, out.episode_return, out.episode_length]
    assert [x.dtype for x in dtypes] == [jnp.float32, bool, bool, jnp.float32, jnp.int32]
    assert np.all(np.isfinite(out.reward))
    assert not np.any(out.terminated & out.truncated)
    if spec.obs_dtype == jnp.uint8:  # a byte holds what the environment showed
        np.testing.assert_array_equal(np.float32(out.obs), np.float32(shown))
        assert np.any(out.obs)


def test_environments_with_other_keys_differ_and_with_one_key_agree():
    _, play = player(Config())
    runs = [play(seed, [0, 1] * 15)[1] for seed in (0, 0, 1)]
    jax.tree.map(np.testing.assert_array_equal, runs[0], runs[1])
    assert not np.allclose(runs[0].obs, runs[2].obs)
    env = make_env(Config())
    _, starts = jax.vmap(env.reset)(jax.random.split(make_key(0), 8))
    assert len(np.unique(starts[:, 0])) == 8


def make_checked(config):
    validate(config, HParams())
    return make_env(config)


@pytest.mark.parametrize(
    ("env", "params", "message"),
    [
        ("CartPole-v1", {"masscart": 0.0}, "env_params: masscart is 0, .*use more than 0"),
        ("CartPole-v1", {"tau": 0.0}, "env_params: tau is 0"),
        ("CartPole-v1", {"length": -1.0}, "env_params: length is -1"),
        ("Pendulum-v1", {"m": 0.0}, "env_params: m is 0"),
        ("Pendulum-v1", {"dt": 0.0}, "env_params: dt is 0"),
        ("Acrobot-v1", {"link_moi": 0.0}, "env_params: link_moi is 0"),
        ("FourRooms-misc", {"fail_prob": 1.5}, "env_params: fail_prob is 1.5; use a probability"),
        ("Freeway-MinAtar", {"player_speed": 2.5}, "env_params: player_speed is 2.5; use an integer"),
        ("CartPole-v1", {"gravity": math.inf}, "env_params: .*finite"),
    ],
)
def test_a_world_that_cannot_be(env, params, message):
    config = Config(env=env, env_params=tuple(params.items()), action_bins=3 if env == "Pendulum-v1" else None)
    with pytest.raises(ConfigError, match=f"^{message}") as error:
        make_checked(config)
    assert str(error.value).isprintable()
