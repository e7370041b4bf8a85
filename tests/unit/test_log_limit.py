"""Log lines that anybody can cause."""

from protocol.log_limit import LogLimiter


def test_one_line_for_each_subject_and_period() -> None:
    now_s = [1000.0]
    limiter = LogLimiter(10.0, lambda: now_s[0])
    assert [limiter.is_due("a"), limiter.is_due("a"), limiter.is_due("b")] == [True, False, True]
    now_s[0] += 9.0
    assert not limiter.is_due("a")
    now_s[0] += 1.0
    assert [limiter.is_due("a"), limiter.is_due("a")] == [True, False]


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    now_s = [1000.0]
    limiter = LogLimiter(10.0, lambda: now_s[0])
    assert limiter.is_due("a")
    now_s[0] = 5.0
    assert limiter.is_due("a")


def test_a_million_subjects_take_the_memory_of_a_thousand() -> None:
    limiter = LogLimiter(10.0, lambda: 0.0)
    assert all(limiter.is_due(str(number)) for number in range(5_000))
    assert len(limiter._said_s) == 1_000
