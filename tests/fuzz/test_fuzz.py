"""A short run of each fuzz driver; `make fuzz` runs them at full length."""

import fuzz_calls
import fuzz_files
import fuzz_responses
import fuzz_tally
import pytest


def assert_without_faults(tally, calls):
    assert tally.counts["calls"] == calls
    assert tally.counts["right"] > calls / 10, "Most questions are odd, but not all."
    assert tally.fault_count == 0, str(tally)


@pytest.mark.parametrize(
    ("function", "check", "fault"),
    [
        (lambda: 1 / 0, None, "crashes of ours"),
        (lambda: int("x"), None, "errors that name no argument"),
        (lambda: 1, lambda result: "is 1", "silently wrong"),
        (lambda: sum(range(10**6)), None, "hangs"),
    ],
)
def test_every_kind_of_fault_is_counted(function, check, fault):
    tally = fuzz_tally.Tally(hang=0.001)
    tally.call("function", {"argument"}, function, check)
    assert (tally.fault_count, tally.counts[fault]) == (1, 1)


def test_damaged_files_are_pixels_or_an_error_that_names_its_argument():
    tally = fuzz_tally.Tally()
    tally.add(fuzz_files.read_in_process(seed=0, first=0, count=300))
    assert_without_faults(tally, 300)


def test_damaged_responses_are_arrays_or_an_error_that_names_its_argument():
    tally = fuzz_tally.Tally()
    fuzz_responses.ask(0, 400, tally)
    assert_without_faults(tally, 1200)


def test_odd_arguments_are_answered_rightly_or_named_by_an_error(tmp_path):
    tally = fuzz_tally.Tally()
    calls = fuzz_calls.Calls(0, tally, tmp_path)
    for number in range(500):
        calls.run(number, fuzz_calls.WITHOUT_TRACE if number > 100 else None)
    assert_without_faults(tally, 500)
