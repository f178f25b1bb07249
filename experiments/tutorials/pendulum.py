"""Tutorial 3, Pendulum (KIT, M. Schutera): does it stand upright, and which of its choices matter?

    .venv/bin/python -m experiments.tutorials.pendulum

The document asks "does it stand upright?", measured as the mean reward per step over 10 test runs of 100 steps; its own
run was interrupted. It asks the reader to try frame skipping, three bins, another exploration, and models after 100,
1,000 and 10,000 episodes. All are here, with the share of test runs that end upright.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dqn_jax
from dqn_jax import convergence
from dqn_jax.prng import make_key
from dqn_jax.runs.play import median_lane
from experiments import pages
from experiments.figures import save_figure
from experiments.tutorials import common

NAME = "pendulum"
FOLDER = common.RESULTS / NAME
TEST_RUNS, TEST_FRAMES = 10, 100
UPRIGHT_ANGLE, UPRIGHT_SPEED = 0.26, 1.0  # rad (15 degrees) and rad/s
FRAMES = 250  # per episode
AMOUNTS = (100, 1_000, 10_000)  # training episodes


class Tests(NamedTuple):
    """Ten test runs for each of S seeds."""

    reward: np.ndarray  # [S], mean reward per frame
    upright: np.ndarray  # [S], share of runs that end within 15 degrees of upright
    still: np.ndarray  # [S], share of runs that end so and slower than 1 rad/s
    lean: np.ndarray  # [S], median over the runs of the angle from upright at the end, degrees


def skipping(frames: int, episodes: int = 1_000) -> dict[str, Any]:
    """The faithful settings with every action held for some frames: an episode then has fewer transitions."""
    decisions = -(-FRAMES // frames)
    return {
        "action_repeat": frames,
        "batch_size": decisions,
        "replay_capacity": decisions,
        "total_steps": episodes * decisions,
        "eval_every": episodes // 25 * decisions,
    }


VARIANTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "bins": {f"{bins} bins": ("tutorial-3", {"action_bins": bins}) for bins in (3, 5, 20)},
    "frame skip": {
        **{f"skip {frames}": ("tutorial-3", skipping(frames)) for frames in (1, 2, 4)},
        **{f"skip {n}, {n},000 episodes": ("tutorial-3", skipping(n, n * 1_000)) for n in (2, 4)},
    },
    "exploration": {
        "epsilon decay 0.9999": ("tutorial-3", {}),
        "epsilon decay 0.8": ("tutorial-3", {"epsilon_decay": 0.8}),
    },
    "replay": {
        "last episode, in order, thrown away": ("tutorial-3", {}),
        "last episode, shuffled, thrown away": ("tutorial-3", {"sampling": "without_replacement"}),
        "50,000 kept, 250 drawn": (
            "tutorial-3",
            {"sampling": "without_replacement", "clear_replay": False, "replay_capacity": 50_000},
        ),
        "50,000 kept, 250 drawn, soft target network": (
            "tutorial-3",
            {"sampling": "without_replacement", "clear_replay": False, "replay_capacity": 50_000,
             "target_network": True, "target_period": 1, "target_mixing": 0.01},
        ),
    },
    "form": {
        "faithful": ("tutorial-3", {}),
        "vectorised, as many frames": ("tutorial-3-vectorised", {}),
        "vectorised, ten times the frames": (
            "tutorial-3-vectorised",
            {"total_steps": 2_500_000, "eval_every": 100_000},
        ),
    },
}  # fmt: skip
FAITHFUL = ("20 bins", "skip 1", "epsilon decay 0.9999", "last episode, in order, thrown away", "faithful")
DECAYS: dict[str, dict[str, Any]] = {"epsilon decay 0.9999": {}, "epsilon decay 0.8": {"epsilon_decay": 0.8}}


def main() -> None:
    """Run everything and write the page."""
    trained = {("faithful" if label in FAITHFUL else label): variant
               for variants in VARIANTS.values() for label, variant in variants.items()}  # fmt: skip
    results = {label: common.population(NAME, label, preset, **changes) for label, (preset, changes) in trained.items()}
    faithful, random = results["faithful"], run_tests(results["faithful"], policy="random")
    tests = {
        group: {label: run_tests(results["faithful" if label in FAITHFUL else label]) for label in variants}
        for group, variants in VARIANTS.items()
    }  # several comparisons contain the faithful settings
    amounts = by_amount()
    common.write_csv(FOLDER / "seeds.csv", per_seed(tests, amounts, random))
    common.write_csv(FOLDER / "curves.csv", curve_rows(results))
    save_figure(FOLDER / "compared.png", 9, 7.5, lambda f: draw_compared(f, tests, random))
    save_figure(FOLDER / "episodes.png", 9, 4, lambda f: draw_amounts(f, amounts, random))
    lane = median_lane(tests["form"]["faithful"].reward)
    common.film(faithful, FOLDER / "random.gif", lane=None, title="before: random torques")
    common.film(faithful, FOLDER / "trained.gif", lane=lane, title="after 1,000 episodes, median seed")
    common.write_page(
        NAME,
        preset="tutorial-3",
        figure="compared.png",
        pictures=["random.gif", "trained.gif"],
        percent=percent,
        faithful=tests["form"]["faithful"],
        random=random,
        tests=tests,
        amounts=amounts,
        amount_rows={label: [row(f"{n:,}", t) for n, t in by.items()] for label, by in amounts.items()},
        group_rows={group: [row(label, t) for label, t in labels.items()] for group, labels in tests.items()},
    )


def by_amount() -> dict[str, dict[int, Tests]]:
    """The test runs by exploration and number of training episodes."""
    amounts: dict[str, dict[int, Tests]] = {label: {} for label in DECAYS}
    for label, changes in DECAYS.items():
        for episodes in AMOUNTS:
            # The agents after 1,000 episodes are those after 100, trained further: the same seeds, the same numbers.
            result = common.population(
                NAME, f"{episodes} episodes, {label}", "tutorial-3",
                total_steps=episodes * FRAMES, eval_every=100 * FRAMES, **changes,
            )  # fmt: skip
            amounts[label][episodes] = run_tests(result)
    return amounts


def per_seed(
    tests: dict[str, dict[str, Tests]], amounts: dict[str, dict[int, Tests]], random: Tests
) -> list[dict[str, Any]]:
    """Rows of seeds.csv: every comparison's test runs, seed by seed."""
    rows = [(group, label, t) for group, labels in tests.items() for label, t in labels.items()]
    rows += [("episodes", f"{label}, {n:,} episodes", t) for label, by in amounts.items() for n, t in by.items()]
    rows.append(("baseline", "random policy", random))
    return [
        {"compared": group, "variant": label, "seed": common.FIRST_SEED + i, "reward_per_frame": t.reward[i],
         "share_upright": t.upright[i], "share_still": t.still[i], "lean_degrees": t.lean[i]}
        for group, label, t in rows
        for i in range(len(t.reward))
    ]  # fmt: skip


def run_tests(result: dqn_jax.TrainResult, policy: str = "greedy") -> Tests:
    """Ten runs of 100 frames from random starts with every seed's agent (or random torques)."""
    lanes = jnp.arange(len(result.settings.seeds))
    measured = _tester(result.settings.config, policy)((result.params, lanes))
    return Tests(*(np.asarray(x) for x in measured))


@functools.cache
def _tester(config: dqn_jax.Config, policy: str) -> Any:
    """The test runs of all agents as one compiled function of their networks `[S, ...]` and numbers `[S]`."""
    loop = dqn_jax.make_loop(config)
    env, decisions = loop.env, TEST_FRAMES // config.action_repeat

    def one_run(params: Any, key: jax.Array) -> tuple[jax.Array, ...]:
        reset_key, loop_key = jax.random.split(key)
        state, obs = env.reset(reset_key)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            key, state, obs = carry
            key, act_key, env_key = jax.random.split(key, 3)
            if policy == "random":
                action = jax.random.randint(act_key, (), 0, env.spec.num_actions)
            else:
                action = jnp.argmax(loop.agent.q_values(params, obs[None]), axis=-1)[0]
            state, out = env.advance(env_key, state, action)
            return (key, state, out.obs), None

        (_, state, obs), _ = jax.lax.scan(step, (loop_key, state, obs), length=decisions)
        cosine, sine, speed = obs
        lean = jnp.abs(jnp.arctan2(sine, cosine))
        upright = lean <= UPRIGHT_ANGLE
        still = upright & (jnp.abs(speed) <= UPRIGHT_SPEED)
        return state.episode_return / TEST_FRAMES, upright, still, jnp.degrees(lean)

    def one_agent(inputs: tuple[Any, jax.Array]) -> tuple[jax.Array, ...]:
        params, lane = inputs
        # The same starts for every seed's agent; but a random policy is another one every time.
        key = make_key(2_000_003)
        keys = jax.random.split(jax.random.fold_in(key, lane) if policy == "random" else key, TEST_RUNS)
        *runs, lean = jax.vmap(one_run, (None, 0))(params, keys)
        return *(jnp.mean(x) for x in runs), jnp.median(lean)

    return jax.jit(lambda inputs: jax.lax.map(one_agent, inputs))


def row(label: str, tests: Tests) -> tuple[str, ...]:
    """The test runs of a setting as a line of a page's table."""
    return (
        label,
        pages.mean(tests.reward, 2),
        f"{tests.reward.min():.2f}",
        percent(tests.upright),
        percent(tests.still),
        pages.mean(tests.lean, 0),
    )


def percent(shares: np.ndarray) -> str:
    """Mean share with its interval over seeds; that of a share where all seeds agree, as they show no spread."""
    if np.ptp(shares) == 0.0:
        return pages.share(shares)
    low, high = np.clip(convergence.mean_interval(shares), 0.0, 1.0)
    return f"{shares.mean():.0%} [{low:.0%}, {high:.0%}]"


def curve_rows(results: dict[str, dqn_jax.TrainResult]) -> list[dict[str, Any]]:
    """For curves.csv: greedy return per frame along the way."""
    return [
        {"variant": label, "env_steps": steps, "mean": column.mean() / FRAMES, "worst": column.min() / FRAMES,
         "best": column.max() / FRAMES}
        for label, result in results.items()
        for steps, column in zip(result.history.env_steps, result.history.reading("eval_return").T, strict=True)
    ]  # fmt: skip


def draw_tests(axes: Any, labels: dict[str, Tests], random: Tests, *, title: str = "") -> None:
    """Reward per step (left) and share upright (right) of every seed, with their mean."""
    for axis, field in zip(axes, ("reward", "upright"), strict=True):
        common.draw_strips(axis, {label: getattr(own, field) for label, own in labels.items()}, named=axis is axes[0])
        axis.axvline(getattr(random, field).mean(), color="0.4", ls=":", lw=1)
    axes[0].set_xlim(-9, 0)
    axes[1].set_xlim(-0.03, 1.03)
    axes[0].set_title(title, loc="left", fontsize=9)


def draw_compared(figure: Any, tests: dict[str, dict[str, Tests]], random: Tests) -> None:
    """All comparisons, one above another: reward on the left, share upright on the right."""
    heights = [len(labels) + 0.8 for labels in tests.values()]
    rows = figure.subplots(len(tests), 2, height_ratios=heights, sharex="col")
    for axes, (group, labels) in zip(rows, tests.items(), strict=True):
        draw_tests(axes, labels, random, title=group)
    rows[-1][0].set_xlabel("mean reward per step (dotted: random torques)")
    rows[-1][1].set_xlabel("share of test runs that end upright")


def draw_amounts(figure: Any, amounts: dict[str, dict[int, Tests]], random: Tests) -> None:
    """The same measures by number of training episodes."""
    rows = figure.subplots(len(amounts), 2, sharex="col")
    for axes, (label, by) in zip(rows, amounts.items(), strict=True):
        draw_tests(axes, {f"{n:,} episodes": t for n, t in by.items()}, random, title=label)
    rows[-1][0].set_xlabel("mean reward per step (dotted: random torques)")
    rows[-1][1].set_xlabel("share of test runs that end upright")


if __name__ == "__main__":
    main()
