"""The loop over chunks: who is asked in which order, how it ends, and what is saved then."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dqn_jax.config import HParams
from dqn_jax.drive import Allowance, Ears, Pace, Terms, Work, run_chunks
from dqn_jax.lanes.history import History
from dqn_jax.lanes.lane import ChunkMetrics, Rhythm, WarmupMetrics
from dqn_jax.runs.checkpoint import Saved

RHYTHM = Rhythm(step=2, warmup_steps=4, steps_per_chunk=10, num_chunks=4)
ITERATIONS = RHYTHM.iterations


class Lanes:
    """A population of three lanes on the host, whose state is the number of iterations each has made."""

    evaluation_seconds = 2.0

    def __init__(self, said, stop_within=None):
        self.layout = SimpleNamespace(
            place=lambda tree: tree,
            fetch=self.fetch,
            active=lambda lanes: said.append(("active", lanes.tolist())) or lanes,
        )
        self.unfinished = {}
        self._said, self._stop_within = said, stop_within

    def fetch(self, tree, lanes):
        if isinstance(tree, np.ndarray):
            return tree[lanes]
        return type(tree)(*(np.asarray(leaf)[lanes] for leaf in tree))

    def start(self, seeds, hparams, weights=None):
        nothing = np.full((3, RHYTHM.warmup_iterations, RHYTHM.step), np.nan)
        return np.zeros(3), WarmupMetrics(np.ones(nothing.shape[:2]), nothing)

    def go_on(self, unfinished):
        self.unfinished = unfinished

    def networks(self, lanes):
        return lanes

    def chunk(self, env_steps, lanes, hparams, active):
        self._said.append(("chunk", int(env_steps)))
        before = self.unfinished["epsilon"].shape[1] if self.unfinished else 0
        if self._stop_within is not None:
            taken, self._stop_within = self._stop_within, None
            self.unfinished = {"epsilon": np.ones((3, before + taken))}
            return lanes + taken, None
        self.unfinished = {}
        lanes = lanes.copy()
        lanes[active] += ITERATIONS - before
        quiet = np.full((3, ITERATIONS, RHYTHM.step), np.nan)
        return lanes, ChunkMetrics(
            *[np.zeros(3)] * 3, np.ones(3, bool), np.ones((3, ITERATIONS)), np.zeros((3, ITERATIONS), int), quiet,
            eval_returns=np.tile(lanes[:, None], 2), eval_lengths=np.ones((3, 2)),
        )  # fmt: skip


class Keeper:
    def __init__(self, said, ours=True):
        self.saves, self._said, self._ours = True, said, ours

    def chunk(self, work, leaving):
        self._said.append(("kept", work.env_steps, dict(leaving)))
        return self._ours

    def save(self, work):
        self._said.append(("saved", work.env_steps, work.at_work.tolist()))

    def fresh_games(self, env_steps):
        return f"fresh games after {env_steps}"


def at_work(said, *, within=None, pool=False):
    driver = SimpleNamespace(rhythm=RHYTHM, stops_within=pool, restarts_games=pool)
    return Work(driver, Lanes(said, within), Ears(), History([3, 5, 7], RHYTHM.step), HParams())


def terms(said, *, leaves=None, stopping=lambda: False, ours=True, pace=None, share=1e9):
    judge = SimpleNamespace(leaving=lambda history, at_work, last: (leaves or {}).get(len(history.env_steps), {}))
    return Terms(
        judge=judge,
        keeper=Keeper(said, ours),
        pace=pace or Pace(),
        allowance=Allowance(share),
        stopping=stopping,
        report=lambda phase, env_steps, games: said.append((phase, env_steps)),
        warn=lambda line: said.append(("warned", line)),
    )


def test_a_chunk_is_taken_in_judged_kept_saved_and_told_in_this_order():
    said = []
    work = at_work(said)
    work.start()
    assert run_chunks(work, terms(said, leaves={2: {1: "converged"}})) == "over"
    assert said[:7] == [
        ("active", [0, 1, 2]),
        ("chunk", 4),
        ("kept", 14, {}),
        ("saved", 14, [0, 1, 2]),
        ("train", 14),
        ("chunk", 14),
        ("kept", 24, {1: "converged"}),
    ]
    assert said[7:9] == [("active", [0, 2]), ("saved", 24, [0, 2])]
    assert said[-1] == ("train", 44)
    assert work.history.env_steps == [14, 24, 34, 44]
    np.testing.assert_array_equal(work.history.chunks, [4, 2, 4])
    np.testing.assert_array_equal(work.networks(np.array([1, 2])), [2 * ITERATIONS, 4 * ITERATIONS])


def test_it_ends_when_the_last_lane_leaves_and_nothing_is_saved_before():
    said = []
    work = at_work(said)
    work.start()
    assert run_chunks(work, terms(said, leaves={1: {0: "a", 1: "b", 2: "c"}})) == "over"
    assert [what for what, *_ in said] == ["active", "chunk", "kept", "active", "train", "saved"]
    assert said[-1] == ("saved", 14, [])
    assert run_chunks(work, terms(said)) == "over"  # nobody is left
    assert said[-1] != ("chunk", 14)


def test_a_stop_that_was_asked_for_is_obeyed_between_chunks_and_all_is_saved():
    said, asked = [], []
    work = at_work(said)
    work.start()
    told = terms(said, stopping=lambda: len([s for s in said if s[0] == "train"]) == 2, share=0.0)
    assert run_chunks(work, told) == "stopped"
    assert not asked
    assert [s for s in said if s[0] == "saved"] == [("saved", 14, [0, 1, 2]), ("saved", 24, [0, 1, 2])]


def test_work_that_is_not_ours_any_more_ends_without_another_word():
    said = []
    work = at_work(said)
    work.start()
    assert run_chunks(work, terms(said, ours=False)) == "lost"
    assert said == [("active", [0, 1, 2]), ("chunk", 4), ("kept", 14, {})]


@pytest.mark.parametrize("who", ["somebody", "minutes"])
def test_a_chunk_that_is_stopped_within_is_saved_there_and_gone_on_with(who):
    said = []
    work = at_work(said, within=3, pool=True)
    work.start()
    asked = [False]

    def chunk(*inputs):
        asked[0] = who == "somebody"
        return begun(*inputs)

    begun, work.population.chunk = work.population.chunk, chunk
    assert run_chunks(work, terms(said, stopping=lambda: asked[0])) == ("stopped" if who == "somebody" else "minutes")
    assert ("saved", 10, [0, 1, 2]) in said
    assert [what for what, *_ in said].count("warned") == (who == "minutes")
    assert float(work.history.unfinished["seconds"]) > 0

    saved = Saved(10, work.lanes, work.history.arrays(), np.arange(3))
    said.clear()
    later = at_work(said, pool=True)
    assert later.restore(saved) > 0
    assert (later.env_steps, later.resumed) == (4, True)
    assert run_chunks(later, terms(said)) == "over"
    assert said[1:3] == [("warned", "fresh games after 10"), ("chunk", 4)]
    assert later.history.env_steps == [14, 24, 34, 44]
    assert later.history.unfinished == {}
    np.testing.assert_array_equal(later.lanes, [4 * ITERATIONS] * 3)


def test_lanes_that_were_saved_alone_go_on_in_their_own_places():
    work = at_work([])
    work.start()
    run_chunks(work, terms([], leaves={1: {1: "left"}}, stopping=lambda: len(work.history.env_steps) == 1))
    later = at_work(said := [])
    later.restore(Saved(14, work.lanes[[0, 2]] + [0, 100], work.history.arrays(), np.array([0, 2])))
    assert run_chunks(later, terms(said)) == "over"
    assert said[0] == ("active", [0, 2])
    np.testing.assert_array_equal(later.lanes[[0, 2]], [4 * ITERATIONS, 4 * ITERATIONS + 100])


def clocked(monkeypatch, chunk_seconds, work):
    """A clock by which each chunk takes so long."""
    now = [0.0]
    monkeypatch.setattr("dqn_jax.drive.time", SimpleNamespace(perf_counter=lambda: now[0]))
    begun = work.population.chunk

    def chunk(*inputs):
        now[0] += chunk_seconds
        return begun(*inputs)

    work.population.chunk = chunk
    return now


@pytest.mark.parametrize(
    ("minutes", "chunks", "warned"), [(0.1, 1, []), (1.0, 1, []), (2.5, 2, ["30 s are left"]), (9.0, 4, [])]
)
def test_the_first_chunk_runs_however_few_minutes_and_another_only_if_it_fits(monkeypatch, minutes, chunks, warned):
    work = at_work(said := [])
    work.start()
    clocked(monkeypatch, 60.0, work)
    assert run_chunks(work, terms(said, pace=Pace(minutes))) == ("over" if chunks == 4 else "minutes")
    assert len(work.history.env_steps) == chunks
    assert work.history.seconds == [60.0 * (i + 1) for i in range(chunks)]
    assert [line for what, *rest in said if what == "warned" for line in rest] == [
        f"max_minutes: {words}, and a chunk takes 60: ending here" for words in warned
    ]


def test_a_population_that_can_stop_within_is_asked_to_only_while_it_is_driven():
    ears, told = Ears(), []
    assert not ears.watch.stop()
    assert ears.watch.seconds_left() == np.inf
    ears.watch.on_step(5)
    own = terms(told, stopping=lambda: True, pace=Pace(1.0))
    with ears.lent(own):
        assert ears.watch.stop()
        assert 0 < ears.watch.seconds_left() <= 60
        ears.watch.on_step(7)
        ears.watch.on_game(8, 1, 3)
    assert told == [("step", 7), ("evaluate", 8)]
    assert not ears.watch.stop()


def test_the_answer_tells_what_is_left_of_a_chunk_and_what_is_not_saved(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace(max_minutes=1.0)
    pace.begin()
    now[0] += 20
    assert pace.answer().startswith("stopping after this chunk; ")
    pace.end()
    assert not pace.over()
    pace.begin()
    now[0] += 5
    assert pace.answer() == ("stopping after this chunk (about 15 s); Ctrl-C again stops now and loses the last 25 s")
    pace.saved()
    now[0] += 15
    pace.end()
    assert not pace.over()  # 40 of 60 seconds have passed, and a chunk takes 20
    now[0] += 1
    assert pace.over()
    assert Pace(1.0, earlier=[10.0, 30.0]).chunk == 20.0
    assert Pace(1.0, earlier=[10.0, 30.0], unfinished=45.0).seconds() == 45.0


def test_checkpoints_take_their_share_of_the_time_and_no_more(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    allowance = Allowance(0.1)
    assert allowance.left()
    with allowance.spend():
        now[0] += 2
    assert not allowance.left()  # another one would make it four seconds of two
    now[0] = 39
    assert not allowance.left()
    now[0] = 40
    assert allowance.left()
