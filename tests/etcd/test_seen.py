from outrider.etcd.seen import SeenRevision


def test_the_highest_revision_counts_until_etcd_was_restored() -> None:
    seen = SeenRevision(lambda: "t1")
    seen.note(7)
    seen.note(5)
    assert (7, "t1") == seen()
    seen.forget()
    assert (0, "t1") == seen()
