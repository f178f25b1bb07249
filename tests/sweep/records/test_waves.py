"""Waves: planned by one, leased to one at a time, done with all their lanes."""

from __future__ import annotations

import threading

import pandas as pd
import pytest
from recording import assert_whole, record
from synthetic import curves_of

from dqn_jax.sweep.records import Wave


def test_an_expired_lease_is_taken_over_and_both_records_make_one(place):
    first = place.create(trials=2, waves=1)
    second = place.open()
    wave = first.claim("first", 0.0)
    assert second.waves()[0][1] == "waiting"
    assert record(first, wave, "first", wave.lanes[:1])
    assert second.claim("second", 60) == wave
    assert first.claim("first", 60) is None
    assert not first.renew(wave.id, "first", 60)
    assert not record(first, wave, "first", wave.lanes[1:3], converged_env_steps=5_000.0)  # it counts all the same
    assert second.renew(wave.id, "second", 60)
    assert record(second, wave, "second")
    second.finish(wave.id)
    assert not second.renew(wave.id, "second", 60)
    assert second.lanes()["converged_env_steps"].fillna(0).tolist() == [0, 5_000, 5_000, 0]
    pd.testing.assert_frame_equal(second.curves(), curves_of(second.lanes()))


def test_a_lease_is_renewed_and_given_back(place):
    new = place.create(waves=1)
    wave = new.claim("me", 0.0)
    assert new.renew(wave.id, "me", 60)  # late, but nobody else came
    assert new.claim("other", 60) is None
    new.release("other")
    assert new.claim("other", 60) is None
    new.release("me")
    assert not new.renew(wave.id, "me", 60)
    assert new.claim("other", 60) == wave


def test_a_wave_is_done_only_with_all_its_lanes(place):
    new = place.create()
    wave = new.claim("me", 60)
    record(new, wave, lanes=wave.lanes[1:])
    with pytest.raises(ValueError, match="wave 0 is not done: 1 of its lanes"):
        new.finish(wave.id)


def test_racing_workers_never_share_a_wave(place):
    count, claimed, errors = 12, [], []
    place.create(trials=count, waves=count, seeds=[0])
    stores = [place.open() for _ in range(3)]

    def work(number):
        try:
            while wave := stores[number].claim(f"worker-{number}", 60):
                claimed.append(wave.id)
                record(stores[number], wave, f"worker-{number}")
                stores[number].finish(wave.id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(claimed) == list(range(count))
    assert_whole(place.open())


def test_of_two_that_plan_at_once_one_does(place):
    first = place.create(trials=4, waves=1)
    second = place.open()
    waves = [((0, 7),), ((1, 7),)]
    assert first.plan("confirm", waves, after=1)
    assert not second.plan("confirm", [((0, 7), (1, 7))], after=1)
    assert [wave for wave, _ in second.waves()][1:] == [Wave(1, "confirm", waves[0]), Wave(2, "confirm", waves[1])]
    assert [number for number, _ in first.ask(2, "tpe", 0, after=4)] == [4, 5]
    assert second.ask(2, "tpe", 0, after=4) == []
    assert len(second.points()) == 6
