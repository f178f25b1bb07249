"""The five tutorials in their own cadence: when each trains, on what, and how much it explores, step by step.

Every document's schedule is written down here once more as the plain loop that it is, after the document and not
after the presets. It is told only when episodes ended, and with what return; from then on both must agree.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import scalars

import dqn_jax.lanes.device
from dqn_jax.lanes.device import make_loop
from dqn_jax.presets import PRESETS
from dqn_jax.replay import ReplayState

# -- the documents


@dataclasses.dataclass
class Document:
    """What a tutorial's script has done so far. Steps and transitions are counted from 1."""

    memory: collections.deque[int]
    epsilon: float = 1.0
    fits: int = 0
    replays: list[tuple[int, list[int], int]] = dataclasses.field(default_factory=list)  # step, what was stored, fits
    episodes: int = 0
    over: bool = False

    def replay(self, step: int, fits: int) -> None:
        self.replays.append((step, list(self.memory), fits))
        self.fits += fits


def urbain(done_and_return):
    """1: every step once 32 are stored, 32 one-sample fits; epsilon decays with every replay. 1000 episodes."""
    d = Document(collections.deque(maxlen=2000))
    for step, (done, _) in enumerate(done_and_return, start=1):
        d.memory.append(step)
        if len(d.memory) >= 32:
            d.replay(step, fits=32)
            d.epsilon = max(0.01, d.epsilon * 0.995)
        d.episodes += done
        d.over = d.episodes == 1000
        yield d


def keras_rl(done_and_return):
    """2: every step after ten, one batch of 32; epsilon stays 0.1."""
    d = Document(collections.deque(maxlen=50_000), epsilon=0.1)
    for step, (done, _) in enumerate(done_and_return, start=1):
        d.memory.append(step)
        if step > 10:
            d.replay(step, fits=1)
        d.episodes += done
        yield d


def schutera(done_and_return):
    """3: after each episode one pass over its transitions, which are then thrown away; epsilon decays by episodes."""
    d = Document(collections.deque())
    for step, (done, _) in enumerate(done_and_return, start=1):
        d.memory.append(step)
        if done:
            d.replay(step, fits=len(d.memory))
            d.memory.clear()
            d.epsilon = max(0.02, d.epsilon * 0.9999)
        d.episodes += done
        yield d


def deep_q_network(done_and_return, enough=195.0):
    """4: every step once 24 are stored, one batch; testing starts once five episodes average above `enough`."""
    d, scores, testing = Document(collections.deque(maxlen=2500)), [], False
    for step, (done, score) in enumerate(done_and_return, start=1):
        d.memory.append(step)
        if len(d.memory) >= 24 and not testing:
            d.replay(step, fits=1)
            d.epsilon = max(0.001, d.epsilon * 0.995)
        if done:
            scores.append(score)
            testing = testing or (len(scores) >= 5 and sum(scores[-5:]) / 5 > enough)
        if testing:
            d.epsilon = 0.0
        d.episodes += done
        d.over = d.episodes == 500
        yield d


def polecart(done_and_return):
    """5: at the end of each of 200 episodes, if 32 are stored, 32 one-sample fits; epsilon decays with them."""
    d = Document(collections.deque(maxlen=2000))
    for step, (done, _) in enumerate(done_and_return, start=1):
        d.memory.append(step)
        if done and len(d.memory) >= 32:
            d.replay(step, fits=32)
            d.epsilon = max(0.01, d.epsilon * 0.995)
        d.episodes += done
        d.over = d.episodes == 200
        yield d


# -- the presets, watched


class Watched(NamedTuple):
    """A replay's state, and all transitions that ever went in, one after another."""

    state: ReplayState
    log: Any  # Transition, leaves [S, ...]
    added: jax.Array  # []
    priorities: tuple[()] = ()


class Fits(NamedTuple):
    """Optimiser state of a watched agent: the real one, and what each gradient step was made on."""

    opt_state: Any
    obs_tm1: jax.Array  # [U, minibatch, *obs_shape]
    networks: Any  # online and target network after each of the first updates, leaves [20, ...]


class Run(NamedTuple):
    """One seed of a watched preset."""

    loop: Any
    hparams: Any
    lanes: list[Any]  # after the warm-up and after every chunk
    env_steps: list[int]  # likewise
    updates: np.ndarray  # [T], after every step
    epsilon: np.ndarray  # [T]
    episode_return: np.ndarray  # [T], NaN where no episode ended
    transitions: Any  # Transition, leaves [T, ...], all in order
    fitted: np.ndarray  # [U, minibatch], the number of each transition fitted, counted from 1


def run_watched(monkeypatch, config, hparams, chunks, max_steps=4_000, max_updates=40_000, seed=0):
    """Run a lane with an agent that notes what it is fitted on, and a memory that notes what goes in."""
    make_agent, make_memory = dqn_jax.lanes.device.make_agent, dqn_jax.lanes.device.make_memory
    minibatch = config.minibatch_size or config.batch_size

    def watched_agent(config, spec):
        agent = make_agent(config, spec)

        def init(key, hparams):
            state = agent.init(key, hparams)
            obs = jnp.zeros((max_updates, minibatch, *spec.obs_shape))
            networks = jax.tree.map(lambda x: jnp.zeros((20, *x.shape)), (state.params, state.target_params))
            return state._replace(opt_state=Fits(state.opt_state, obs, networks))

        def learn(state, batch, hparams, key):
            fits, made = state.opt_state, state.updates
            assert batch.transition.obs_tm1.shape[0] == minibatch
            state, *info = agent.learn(state._replace(opt_state=fits.opt_state), batch, hparams, key)
            networks = jax.tree.map(
                lambda log, x: log.at[made].set(x, mode="drop"),
                fits.networks,
                (state.params, state.target_params),
            )
            fits = Fits(state.opt_state, fits.obs_tm1.at[made].set(batch.transition.obs_tm1), networks)
            return state._replace(opt_state=fits), *info

        return agent._replace(init=init, learn=learn)

    def watched_memory(*args):
        memory = make_memory(*args)

        def init(example_row):
            log = jax.tree.map(lambda x: jnp.zeros((max_steps, *x.shape[1:]), x.dtype), example_row.transition)
            return Watched(memory.init(example_row), log, jnp.int32(0))

        def add(state, row):
            log = jax.tree.map(lambda log, x: log.at[state.added].set(x[0]), state.log, row.transition)
            return Watched(memory.add(state.state, row), log, state.added + 1)

        def sample(state, *args):
            return memory.sample(state.state, *args)

        def clear(state, when):
            return state._replace(state=memory.clear(state.state, when))

        return memory._replace(init=init, add=add, sample=sample, clear=clear)

    monkeypatch.setattr("dqn_jax.lanes.device.make_agent", watched_agent)
    monkeypatch.setattr("dqn_jax.lanes.device.make_memory", watched_memory)
    loop, quick = make_loop(config), {"xla_backend_optimization_level": 0}
    start, chunk = (jax.jit(f, compiler_options=quick) for f in (loop.start, loop.chunk))
    hparams = scalars(hparams)
    lane, warmup = start(jnp.int32(seed), hparams)
    lanes, env_steps, reports = [lane], [loop.warmup_steps], []
    for _ in range(chunks):
        lane, report = chunk(jnp.int32(env_steps[-1]), lane, hparams)
        lanes.append(lane)
        env_steps.append(env_steps[-1] + loop.steps_per_chunk)
        reports.append(report)
    updates, added = int(lane.agent.updates), int(lane.replay.added)
    assert updates <= max_updates
    assert added <= max_steps
    transitions = jax.tree.map(lambda x: np.asarray(x)[:added], lane.replay.log)
    numbers = {obs.tobytes(): number for number, obs in enumerate(transitions.obs_tm1, start=1)}
    assert len(numbers) == added  # no observation came twice
    fitted = np.asarray(lane.agent.opt_state.obs_tm1)[:updates]
    return Run(
        loop,
        hparams,
        lanes,
        env_steps,
        np.concatenate([np.zeros(loop.warmup_steps, int), *(r.updates for r in reports)]),
        np.concatenate([warmup.epsilon, *(r.epsilon for r in reports)]),
        np.concatenate([warmup.episode_return, *(r.episode_return for r in reports)])[:, 0],
        transitions,
        np.array([[numbers[obs.tobytes()] for obs in batch] for batch in fitted]).reshape(updates, minibatch),
    )


def assert_follows(run, schedule):
    """Compare a run with a document's schedule at every step; gives the document at the end and where it ended."""
    done = ~np.isnan(run.episode_return)
    fits, epsilon, stored, document = [], [], [0], None
    for document in schedule(zip(done, run.episode_return, strict=True)):
        fits.append(document.fits)
        epsilon.append(document.epsilon)
        stored.append(len(document.memory))
        if document.over:
            break
    steps = len(fits)
    rest = len(done) - steps  # after the last episode nothing happens
    np.testing.assert_array_equal(run.updates, np.pad(fits, (0, rest), mode="edge"))
    np.testing.assert_allclose(run.epsilon, np.pad(epsilon, (0, rest), mode="edge"), rtol=0, atol=1e-6)
    assert not done[steps:].any()
    assert len(run.transitions.a_tm1) == steps
    for lane, env_steps in zip(run.lanes, run.env_steps, strict=True):
        step = min(env_steps, steps)
        capacity = lane.replay.state.storage.a_tm1.shape[0]
        assert min(int(lane.replay.state.rows_added), capacity) == stored[step]
        assert int(lane.trainings) == sum(at <= step for at, _, _ in document.replays)
        assert int(lane.episodes) == done[:step].sum()
    assert int(run.lanes[-1].agent.updates) == document.fits
    return document, steps


def replayed(run, document):
    """For every replay of the document what was stored, and what the run fitted: `(stored, [fits, minibatch])`."""
    fitted = np.split(run.fitted, np.cumsum([fits for _, _, fits in document.replays])[:-1])
    return [(stored, fits) for (_, stored, _), fits in zip(document.replays, fitted, strict=True)]


def short(name, eval_every, **changes):
    """The preset's settings, but for what it does not do while it learns."""
    preset = PRESETS[name]
    return dataclasses.replace(preset.config, eval_every=eval_every, eval_episodes=1, **changes), preset.hparams


def test_tutorial_1_makes_32_one_sample_fits_at_every_step_once_32_are_stored(monkeypatch):
    run = run_watched(monkeypatch, *short("tutorial-1", 350), chunks=3)
    document, steps = assert_follows(run, urbain)
    assert document.replays[0][0] == 32
    assert len(document.replays) == steps - 31
    assert document.epsilon == 0.01  # long enough to reach the floor
    for stored, fits in replayed(run, document):
        assert fits.shape == (32, 1)
        assert len(np.unique(fits)) == 32
        assert np.isin(fits, stored).all()
    # A fall costs 10, and only a fall.
    fell = run.transitions.discount_t == 0.0
    assert fell.any()
    np.testing.assert_array_equal(run.transitions.r_t, np.where(fell, -10.0, 1.0))
    np.testing.assert_array_equal(fell, run.episode_return < 500.0)  # the time limit is none


def test_tutorial_2_fits_one_batch_a_step_after_ten_and_moves_its_target_softly(monkeypatch):
    run = run_watched(monkeypatch, *short("tutorial-2", 200), chunks=3)
    document, steps = assert_follows(run, keras_rl)
    assert document.replays[0][0] == 11
    assert len(document.replays) == steps - 10
    for stored, fits in replayed(run, document):
        assert fits.shape == (1, 32)
        assert np.isin(fits, stored).all()
        assert len(np.unique(fits)) == 32 or len(stored) < 32
    np.testing.assert_array_equal(run.transitions.r_t, 1.0)
    # One part in a hundred after every update, by hand.
    agent = run.lanes[0].agent
    target = jax.tree.map(np.asarray, agent.params)
    jax.tree.map(np.testing.assert_array_equal, agent.target_params, target)
    online_log, target_log = run.lanes[-1].agent.opt_state.networks
    for i in range(20):
        online, moved = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), log) for log in (online_log, target_log))
        target = jax.tree.map(lambda t, o: 0.99 * t + 0.01 * o, target, online)
        jax.tree.map(lambda got, by_hand: np.testing.assert_allclose(got, by_hand, atol=1e-6), moved, target)
    first, last = (jax.tree.leaves(tree)[-1] for tree in (agent.params, online))
    assert np.max(np.abs(first - last)) > 1e-3


def test_tutorial_3_goes_once_through_each_episode_in_order_and_throws_it_away(monkeypatch):
    run = run_watched(monkeypatch, *short("tutorial-3", 125), chunks=8)
    document, _ = assert_follows(run, schutera)
    assert [step for step, _, _ in document.replays] == [250, 500, 750, 1000]
    assert [int(lane.replay.state.rows_added) for lane in run.lanes] == [0, 125, 0, 125, 0, 125, 0, 125, 0]
    np.testing.assert_array_equal(run.fitted[:, 0], np.arange(1, 1001))
    # Time limits, not terminations; and rewards as Pendulum gives them.
    np.testing.assert_array_equal(run.transitions.discount_t, 1.0)
    assert run.transitions.r_t.min() >= -16.3
    returns = run.transitions.r_t.reshape(4, 250).sum(axis=1)
    np.testing.assert_allclose(run.episode_return[249::250], returns, rtol=1e-5)
    assert set(run.transitions.a_tm1.tolist()) == set(range(20))


def test_tutorial_4_fits_one_batch_of_24_a_step_and_tests_once_five_episodes_are_good(monkeypatch):
    config, hparams = short("tutorial-4", 300, freeze_when="train5>20")
    assert PRESETS["tutorial-4"].config.freeze_when == "train5>195"
    # With this seed five episodes average exactly 20 before any five do better.
    run = run_watched(monkeypatch, config, hparams, chunks=3, seed=4)
    document, steps = assert_follows(run, lambda ends: deep_q_network(ends, enough=20.0))
    last = document.replays[-1][0]
    assert document.replays[0][0] == 24
    assert len(document.replays) == last - 23
    assert last < steps
    for stored, fits in replayed(run, document):
        assert fits.shape == (1, 24)
        assert np.isin(fits, stored).all()
        assert len(np.unique(fits)) == 24
    # From then on it is greedy.
    q = np.asarray(run.loop.agent.q_values(run.lanes[-1].agent.params, run.transitions.obs_tm1[last:]))
    clear = np.abs(q[:, 0] - q[:, 1]) > 1e-4
    np.testing.assert_array_equal(run.transitions.a_tm1[last:][clear], np.argmax(q, axis=1)[clear])
    assert clear.mean() > 0.9


def test_tutorial_5_makes_32_one_sample_fits_after_each_of_200_episodes(monkeypatch):
    # With this seed the second episode ends at the step that stores the 32nd transition.
    run = run_watched(monkeypatch, *short("tutorial-5", 500), chunks=20, max_steps=10_000, seed=1)
    document, steps = assert_follows(run, polecart)
    assert document.over
    assert document.episodes == 200
    assert steps > 2_000  # more than is stored
    ends = np.flatnonzero(~np.isnan(run.episode_return)) + 1
    assert ends[0] < ends[1] == document.replays[0][0] == 32
    assert [step for step, _, _ in document.replays] == ends[1:].tolist()
    for stored, fits in replayed(run, document):
        assert fits.shape == (32, 1)
        assert len(np.unique(fits)) == 32
        assert np.isin(fits, stored).all()


@pytest.mark.parametrize(
    ("number", "cap", "episodes", "sizes", "capacity", "learning_rate", "discount"),
    [
        (1, 500, 1_000, (4, 24, 24, 2), 2_000, 1e-3, 0.95),
        (2, 200, None, (4, 16, 2), 50_000, 1e-3, 0.99),
        (3, 250, 1_000, (3, 128, 64, 20), 250, 2e-4, 0.9),
        (4, 210, 500, (4, 24, 24, 2), 2_500, 1e-3, 0.95),
        (5, 500, 200, (4, 24, 24, 2), 2_000, 1e-3, 0.95),
    ],
)
def test_tutorials_have_the_numbers_of_their_documents(number, cap, episodes, sizes, capacity, learning_rate, discount):
    preset = PRESETS[f"tutorial-{number}"]
    loop = make_loop(preset.config)
    lane, _ = jax.eval_shape(loop.start, jax.ShapeDtypeStruct((), jnp.int32), scalars(preset.hparams))
    assert loop.env.spec.max_episode_steps == cap
    kernels = [layer["kernel"].shape for layer in lane.agent.params["params"].values()]
    assert sorted(kernels) == sorted(itertools.pairwise(sizes))
    assert lane.replay.storage.a_tm1.shape == (capacity, 1)
    assert (lane.agent.target_params != ()) == (number == 2)
    assert (preset.config.optimizer, preset.config.loss, preset.config.double) == ("adam", "squared", False)
    assert (preset.hparams.learning_rate, preset.hparams.discount) == (learning_rate, discount)
    total = loop.warmup_steps + loop.num_chunks * loop.steps_per_chunk
    if number == 2:
        assert (total, preset.config.total_episodes) == (5_000, None)
    elif number == 3:  # all episodes are of the same length
        assert (total, preset.config.total_episodes) == (episodes * cap, None)
    else:  # episodes are counted, and at their longest they all fit in
        assert preset.config.total_episodes == episodes
        assert total >= episodes * cap
