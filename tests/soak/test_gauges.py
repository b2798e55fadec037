"""What the soak says of processes that grow, and of those that only come to their parts."""

from collections.abc import Callable

from tests.soak.gauges import Life, Sample, outgrown


def life(name: str, seconds: int, rss_kib: Callable[[int], float]) -> Life:
    return Life(name, 1, [Sample(float(at), int(rss_kib(at)), 14, 20) for at in range(seconds)])


def test_a_process_that_grows_is_told_and_one_that_has_settled_is_not() -> None:
    grows = life("sidekick-a", 560, lambda at: 76_000 + at * 20)
    settles = life("sidekick-b", 560, lambda at: min(80_000, 70_000 + at * 100))

    assert ["sidekick-a: memory grows by 1200 KiB/min, at 87180 KiB now"] == grows.complaints()
    assert [] == settles.complaints()


def test_a_short_life_is_compared_with_the_longest_one() -> None:
    longest = life("sidekick-a", 560, lambda at: min(80_000, 70_000 + at * 100))
    short = life("sidekick-c", 200, lambda at: 70_000 + at * 30)
    large = life("sidekick-d", 200, lambda at: 70_000 + at * 120)

    assert [] == short.complaints()
    assert ["sidekick-d: 93880 KiB, more than sidekick-a had in a longer life"] == outgrown([longest, short, large])
    assert [] == outgrown([])
