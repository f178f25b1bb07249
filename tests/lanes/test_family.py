"""Every combination of the family's parts: those that make sense are built and learn, the others say why not."""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pools import CARTPOLE
from probes import scalars, tiny

from dqn_jax.agent import make_agent
from dqn_jax.agent.networks import smallest_image
from dqn_jax.config import Config, ConfigError, HParams, validate
from dqn_jax.lanes.device import make_loop
from dqn_jax.lanes.pool import Seen, make_pool_loop
from dqn_jax.types import EnvSpec, FrameRow, Transition

QUICK = {"xla_backend_optimization_level": 0}


class Parts(NamedTuple):
    """What a user combines by configuration."""

    loss: str
    target: str
    double: bool
    dueling: bool
    replay: str
    n_step: int
    noisy: bool
    exploration: str
    target_network: bool


AXES = Parts(
    ("squared", "huber", "categorical", "hl_gauss", "quantile", "implicit_quantile"),
    ("greedy", "expected_sarsa", "munchausen", "advantage"),
    (False, True),
    (False, True),
    ("uniform", "prioritized", "rollout"),
    (1, 3),
    (False, True),
    ("epsilon_greedy", "boltzmann"),
    (True, False),
)
HEADS = {"squared": "mean", "huber": "mean", "categorical": "classes", "hl_gauss": "classes"}  # others: quantiles


def what_is_senseless(parts):
    """The settings that could be left out to make sense of it, each with a word of the reason; none where it does."""
    rollout = parts.replay == "rollout"
    return {
        (field, reason)
        for senseless, field, reason in (
            (parts.double and not parts.target_network, "double", "no second opinion"),
            (parts.double and parts.target == "munchausen", "double", "average over the next actions"),
            (parts.double and rollout, "double", "before there is a second opinion"),
            (rollout and parts.target != "greedy", "target", "lambda-returns"),
            (rollout and parts.n_step > 1, "n_step", "trace_decay"),
        )
        if senseless
    }


def test_every_combination_is_accepted_or_refused_with_the_reason():
    combinations = [Parts(*values) for values in itertools.product(*AXES)]
    assert len(combinations) == 6 * 4 * 3 * 2**6
    sensible = 0
    for parts in combinations:
        reasons, config = what_is_senseless(parts), Config(**parts._asdict())
        if not reasons:
            validate(config, HParams())
            sensible += 1
            continue
        with pytest.raises(ConfigError) as refused:
            validate(config, HParams())
        said = str(refused.value)
        assert any(said.startswith(f"{field}: ") and why in said for field, why in reasons), parts
    assert sensible == 2208


# -- shapes of all


OBSERVATIONS = {"mlp": (3,), "minatar": (10, 10, 4), "dqn2013": (24, 24, 1), "nature": (36, 36, 1), "impala": (8, 8, 1)}
OBSERVATIONS |= {"hadamax": (10, 10, 4)}
BATCH, ACTIONS = 5, 3


def small(parts, torso="mlp"):
    fields = {name: value for name, value in parts._asdict().items() if name not in ("replay", "n_step")}
    return Config(torso=torso, hidden=(4,), atoms=5, **fields)


def transitions(shape, obs_t=True):
    obs = jax.ShapeDtypeStruct((BATCH, *shape), jnp.float32)
    number, count = (jax.ShapeDtypeStruct((BATCH,), dtype) for dtype in (jnp.float32, jnp.int32))
    return Transition(obs, count, number, number, obs if obs_t else ())


@pytest.mark.parametrize("loss", AXES.loss)
def test_every_sensible_agent_is_built_acts_and_learns_in_shapes(loss):
    """With each torso once, then with an MLP; every target with two of four kinds of layers, the next with the others.

    What is remembered, and how, an agent does not know, but for a rollout's whole targets. Exploration and target
    network are crossed with the rest in the rows below.
    """
    targets = itertools.product(AXES.target, AXES.double, AXES.replay[::2])
    plain = Parts(loss, "greedy", False, False, "uniform", 1, False, "epsilon_greedy", True)
    learning = (plain._replace(target=target, double=double, replay=replay) for target, double, replay in targets)
    sensible = [parts for parts in learning if not what_is_senseless(parts)]
    layers = itertools.cycle(((False, False), (True, True), (False, True), (True, False)))
    torsos = itertools.chain(OBSERVATIONS, itertools.repeat("mlp"))
    for parts, (dueling, noisy) in zip([parts for parts in sensible for _ in range(2)], layers, strict=False):
        parts, torso = parts._replace(dueling=dueling, noisy=noisy), next(torsos)
        shape = OBSERVATIONS[torso]
        assert torso == "mlp" or min(shape[:2]) >= smallest_image(torso)
        agent = make_agent(small(parts, torso), EnvSpec("test", shape, jnp.float32, ACTIONS, 10))

        def both(key, batch, agent=agent):
            state = agent.init(key, HParams())
            actions = agent.act(state.params, batch.obs_tm1, 0.1, jax.random.key(1))
            return state, agent.update(state, batch, HParams(), jnp.ones(BATCH)), actions

        batch = transitions(shape, obs_t=parts.replay != "rollout")
        with jax.debug_key_reuse(False):  # it takes most of the time, and is on below
            before, (after, info), actions = jax.eval_shape(both, jax.random.key(0), batch)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
        assert all(x.shape == () and x.dtype == jnp.float32 for x in info)
        assert (actions.shape, actions.dtype) == ((BATCH,), jnp.int32)


# -- all pairs, compiled

# Every pair of parts that makes sense together is in one of these rows, and each part on both kinds of environment,
# losses with the same head taken together.
COVERING = [
    ("device", Parts("squared", "advantage", False, False, "prioritized", 3, True, "epsilon_greedy", False)),
    ("pool", Parts("huber", "expected_sarsa", True, True, "uniform", 1, False, "boltzmann", True)),
    ("device", Parts("categorical", "greedy", False, False, "rollout", 1, False, "boltzmann", False)),
    ("pool", Parts("quantile", "greedy", True, True, "prioritized", 3, True, "epsilon_greedy", True)),
    ("device", Parts("implicit_quantile", "munchausen", False, True, "uniform", 3, False, "epsilon_greedy", False)),
    ("pool", Parts("hl_gauss", "munchausen", False, False, "prioritized", 1, True, "boltzmann", True)),
    ("device", Parts("categorical", "expected_sarsa", True, False, "uniform", 3, True, "epsilon_greedy", True)),
    ("pool", Parts("quantile", "advantage", True, False, "prioritized", 1, False, "boltzmann", True)),
    ("pool", Parts("squared", "greedy", False, True, "rollout", 1, True, "epsilon_greedy", False)),
    ("device", Parts("implicit_quantile", "expected_sarsa", False, True, "prioritized", 3, False, "boltzmann", False)),
    ("pool", Parts("hl_gauss", "advantage", False, True, "uniform", 3, True, "epsilon_greedy", False)),
    ("pool", Parts("quantile", "greedy", False, False, "rollout", 1, False, "boltzmann", True)),
    ("device", Parts("huber", "munchausen", False, False, "uniform", 3, True, "boltzmann", True)),
    ("pool", Parts("squared", "greedy", False, False, "uniform", 3, False, "boltzmann", False)),
]


def pairs(kind, parts):
    named = parts._replace(loss=HEADS.get(parts.loss, "quantiles"))._asdict() | {"kind": kind}
    return set(itertools.combinations(named.items(), 2))


def test_the_rows_cover_all_pairs():
    sensible = [parts for parts in map(Parts._make, itertools.product(*AXES)) if not what_is_senseless(parts)]
    wanted = set().union(*(pairs(kind, parts) for kind in ("device", "pool") for parts in sensible))
    assert set().union(*(pairs(*row) for row in COVERING)) == wanted
    assert {parts.loss for _, parts in COVERING} == set(AXES.loss)


def settings(base, parts):
    rollout = parts.replay == "rollout"
    more = {"rollout_length": 4} if rollout else {"batch_size": 8, "replay_capacity": 64, "train_every": 4}
    return dataclasses.replace(
        base,
        hidden=(4,),
        atoms=5,
        num_envs=2,
        min_replay=8,
        updates_per_train=2,
        eval_every=16,
        eval_episodes=2,
        total_steps=24,
        **more,
        **parts._asdict(),
    )


def updated_on_the_device(parts):
    """A chunk of a probe: the learner before and after, and sums over its updates."""
    loop = make_loop(settings(tiny(env="ProbeTwoSteps-test"), parts))
    start, chunk = (jax.jit(f, compiler_options=QUICK) for f in (loop.start, loop.chunk))
    lane, _ = start(jnp.int32(0), scalars(HParams()))
    after, metrics = chunk(jnp.int32(loop.warmup_steps), lane, scalars(HParams()))
    return lane.agent, after.agent, (metrics.loss, metrics.td_error, metrics.q_mean)


def updated_over_a_pool(parts):
    """Ten rows of a pool, and two times of training from them."""
    loop = make_pool_loop(settings(CARTPOLE, parts))
    start, act, learn = (jax.jit(f, compiler_options=QUICK) for f in (loop.start, loop.act, loop.learn))
    hparams, rng, no = scalars(HParams()), np.random.default_rng(0), np.zeros(2, bool)
    lane = start(jnp.int32(0), hparams)
    before = lane.agent
    for step in range(10):
        frame = rng.normal(size=(2, *loop.frame_shape)).astype(np.float32)
        row = FrameRow(frame, np.zeros(2, np.int32), np.ones(2, np.float32), no, no, np.array([step == 5, False]))
        lane, actions, _ = act(jnp.int32(2 * step), lane, Seen(row, no, None), hparams)
        assert set(np.asarray(actions)) <= {0, 1}
    lane, sums = learn(jnp.int32(2), lane, hparams)
    return before, lane.agent, sums


@pytest.mark.parametrize(("kind", "parts"), COVERING, ids=[f"{kind}-{parts.loss}" for kind, parts in COVERING])
def test_what_goes_together_learns_together(kind, parts):
    updated = {"device": updated_on_the_device, "pool": updated_over_a_pool}[kind]
    before, after, diagnostics = updated(parts)
    assert int(after.updates) > 0
    assert np.isfinite(diagnostics).all()
    learnt = before.params["params"], after.params["params"]
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(learnt[0]), jax.tree.leaves(learnt[1]), strict=True
    ):
        assert np.isfinite(new).all()
        assert not np.array_equal(old, new), jax.tree_util.keystr(path)
