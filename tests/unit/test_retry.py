"""What follows from each error, exhaustively: a new error class must say what it leads to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader import errors
from distributed_downloader.errors import RateLimitError, TransferError
from distributed_downloader.retry import Action, Counted, RetryPolicy, park_seconds

#: What is raised though there are more particular ones below it.
RAISED_THEMSELVES = (
    errors.LocalError,
    errors.PlaceError,
    errors.NetworkError,
    errors.NoAnswerError,
    errors.StalledError,
)


def leaves(cls: type[TransferError]) -> Iterator[type[TransferError]]:
    # A module's own errors are its own business.
    below = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    if not below or cls in (
        errors.LocalError,
        errors.PlaceError,
        errors.NetworkError,
        errors.NoAnswerError,
        errors.StalledError,
    ):
        yield cls
    for sub in below:
        yield from leaves(sub)


EXPECTED = {
    errors.AccessError: Action.BURY,
    errors.NotFoundError: Action.BURY,
    errors.RefusedError: Action.BURY,
    errors.FlawError: Action.BURY,
    errors.NetworkError: Action.RETRY,
    errors.NoAnswerError: Action.RETRY,
    errors.NoConnectionError: Action.RETRY,
    errors.MuteError: Action.RETRY,
    errors.StalledError: Action.RETRY,
    errors.ServerError: Action.RETRY,
    errors.RateLimitError: Action.RETRY,
    errors.RangeError: Action.RETRY,
    errors.UnfitError: Action.RETRY,
    errors.CorruptError: Action.RETRY,
    errors.LocalError: Action.REST,
    errors.PlaceError: Action.RETRY,
    errors.RoomError: Action.RETRY,
    errors.MissingError: Action.RETRY,
    errors.PlaceUnseenError: Action.BLIND,
    errors.SpoolError: Action.REST,
    errors.WaitsForNasError: Action.REST,
    errors.NotAllowedError: Action.BLIND,
    errors.HubAwayError: Action.BLIND,
    errors.StoppedError: Action.RELEASE,
}


def make(cls: type[TransferError]) -> TransferError:
    if cls is errors.FlawError:
        return errors.FlawError("trouble", "wrong")
    return RateLimitError("slow down", 7) if cls is RateLimitError else cls("trouble")


def test_every_error_has_a_decision() -> None:
    assert set(leaves(TransferError)) == set(EXPECTED)


@pytest.mark.parametrize(("cls", "action"), EXPECTED.items())
def test_action(cls: type[TransferError], action: Action) -> None:
    assert RetryPolicy().decide(make(cls), 0).action is action


@given(tries=st.integers(0, 40), share=st.floats(0, 1))
def test_full_jitter_is_bounded_and_doubles(tries: int, share: float) -> None:
    policy = RetryPolicy(base=2.0, cap=300.0, draw=lambda low, high: low + share * (high - low))
    assert policy.delay(tries) == share * min(300.0, 2.0 * 2.0**tries)


def test_the_hub_s_pause_wins_over_the_back_off_and_holds_the_fleet() -> None:
    decision = RetryPolicy(draw=lambda low, high: high).decide(RateLimitError("slow down", 172), 0)
    assert decision.delay == 174
    assert decision.hold == 172


def test_a_pause_that_the_hub_asks_for_does_not_use_up_the_few_tries_of_a_file() -> None:
    policy = RetryPolicy()
    assert policy.decide(RateLimitError("slow down", 1), 0).excused_tries == 10
    assert policy.decide(errors.NetworkError("reset"), 0).excused_tries == 0


@pytest.mark.parametrize(
    "cls", [errors.ServerError, errors.NoAnswerError, errors.NoConnectionError, errors.MuteError]
)
def test_a_host_that_is_away_is_waited_for_and_costs_no_file_its_few_tries(cls: type[TransferError]) -> None:
    policy = RetryPolicy(draw=lambda low, high: (low + high) / 2)
    decisions = [policy.decide(make(cls), 0, away) for away in range(policy.away_tries)]
    assert {decision.excused_tries for decision in decisions} == {policy.away_tries}
    assert decisions[0].delay == 1
    assert sum(decision.delay for decision in decisions) > 1500
    assert max(decision.delay for decision in decisions) == policy.away_cap / 2


def test_a_host_that_is_away_is_counted_apart_from_pauses_that_it_asks_for() -> None:
    policy = RetryPolicy()
    kinds = {policy.decide(make(cls), 0).counted for cls in (errors.ServerError, errors.RateLimitError)}
    assert kinds == {Counted.AWAY, Counted.NOT_NOW}
    assert policy.decide(make(errors.CorruptError), 0).counted is Counted.FAILURE


def test_who_has_bytes_of_a_file_keeps_it_for_a_while_when_the_hub_is_away() -> None:
    policy, error = RetryPolicy(), make(errors.HubAwayError)
    assert policy.decide(error, 0, policy.kept_tries - 1, kept=1).action is Action.RETRY
    assert policy.decide(error, 0, policy.kept_tries - 1, kept=0).action is Action.BLIND
    assert policy.decide(error, 0, policy.kept_tries, kept=1).action is Action.BLIND
    assert RetryPolicy(others=False).decide(error, 0, kept=1).action is Action.REST


def test_no_count_of_failures_is_too_large_for_a_delay() -> None:
    assert RetryPolicy().decide(errors.ServerError("ill"), 10**18, 10**18).delay <= 60


def test_a_file_that_does_not_fit_here_is_offered_to_other_machines() -> None:
    decision = RetryPolicy(draw=lambda low, high: high).decide(errors.PlaceError("too large"), 2)
    assert (decision.action, decision.delay, decision.excused_tries) == (Action.RETRY, 60.0, 10)


def test_a_retry_waits_longer_for_the_host_that_holds_more_of_it() -> None:
    assert park_seconds(0) == 0
    assert park_seconds(10_000_000) == 1
    assert park_seconds(10**12) == 300


def test_exit_codes() -> None:
    assert errors.DownloaderError.exit_code == 1
    assert errors.UsageError.exit_code == errors.ConfigError.exit_code == 2
    assert errors.RedisUnavailableError.exit_code == errors.HubUnavailableError.exit_code == 3


def test_where_there_is_no_other_machine_a_folder_that_is_not_seen_is_its_own_trouble() -> None:
    error = make(errors.PlaceUnseenError)
    assert RetryPolicy(others=False).decide(error, 0).action is Action.REST
