"""How much the tests try: a part with every change, and all of it where TESTS is `whole`, as in .ci/long."""

import itertools
import os
import random

WHOLE = os.environ.get("TESTS") == "whole"


def some(count):
    """Of so many examples or texts, those that are tried now: all, or a fifth and at least ten."""
    return count if WHOLE else min(count, max(count // 5, 10))


def left_out(items):
    """The cases of tests with the marker `sampled` that are not tried now, always the same; no long ones."""
    if WHOLE:
        return
    marked = [item for item in items if item.get_closest_marker("sampled") and not item.get_closest_marker("long")]
    for name, cases in itertools.groupby(marked, lambda item: item.nodeid.partition("[")[0]):
        cases = list(cases)
        (one_of,) = cases[0].get_closest_marker("sampled").args
        chosen = random.Random(name).sample(range(len(cases)), -(-len(cases) // one_of))
        yield from (case for place, case in enumerate(cases) if place not in chosen)
