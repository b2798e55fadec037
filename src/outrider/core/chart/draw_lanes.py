"""Where the vertical lines between two columns run, so that few of them are crossed.

A net is all lines to one target: they come from rows on the left and right, meet on one vertical line in a lane, and
leave it in one row for the target. Nets that overlap in height have lanes of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

GAP = 10
"""Height between two nets in one lane."""

Costs = Mapping[tuple[str, str], int]
"""Crossings of two nets, by their targets, when the first lies to the left of the second."""

PASSES = 20
"""Rounds of improving; each ends early when nothing gets better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """All lines to one target.

    Attributes:
        target: What its lines lead to.
        left: Heights at which it is joined from the left, or leaves to the left.
        right: The same on the right.
    """

    target: str
    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def top(self) -> int:
        """Where its vertical line begins."""
        return min(*self.left, *self.right, 1_000_000_000)

    @property
    def bottom(self) -> int:
        """Where its vertical line ends."""
        return max(*self.left, *self.right, 0)

    def crossed(self, other: "Net") -> int:
        """Crossings of the two when this one lies to the left of ``other``."""
        over = sum(self.top < y < self.bottom for y in other.left)
        return over + sum(other.top < y < other.bottom for y in self.right)


def assign_lanes(nets: tuple[Net, ...]) -> dict[str, int]:
    """The lane of each net by its target, counted from the left."""
    lanes: list[list[Net]] = []
    # What is joined from the left alone lies best at the left. Equal ones keep the order in which they came.
    for net in sorted(nets, key=lambda net: (len(net.right) / (len(net.left) + len(net.right)), net.top)):
        home = next((lane for lane in lanes if _fits(net, lane)), None)
        if home is None:
            lanes.append([net])
        else:
            home.append(net)
    costs = {(one.target, other.target): one.crossed(other) for one, other in permutations(nets, 2)}
    for _ in range(PASSES):
        if not _improve(lanes, costs):
            break
    return {net.target: place for place, lane in enumerate(lane for lane in lanes if lane) for net in lane}


def _fits(net: Net, lane: list[Net]) -> bool:
    return all(net.bottom + GAP <= other.top or other.bottom + GAP <= net.top for other in lane)


def _improve(lanes: list[list[Net]], costs: Costs) -> bool:
    """Swap neighbouring lanes, and move nets to other lanes, while that saves failpoint hits."""
    better = False
    for place in range(len(lanes) - 1):
        left, right = lanes[place : place + 2]
        pairs = [(one.target, other.target) for one in left for other in right]
        if sum(costs[other, one] for one, other in pairs) < sum(costs[pair] for pair in pairs):
            lanes[place : place + 2] = right, left
            better = True
    for net in [net for lane in lanes for net in lane]:
        home = next(place for place, lane in enumerate(lanes) if net in lane)
        lanes[home].remove(net)
        fitting = [place for place, lane in enumerate(lanes) if _fits(net, lane)]
        best = min(fitting, key=lambda place: (_cost(net, place, lanes, costs), abs(place - home)))
        lanes[best].append(net)
        better = better or best != home
    return better


def _cost(net: Net, place: int, lanes: list[list[Net]], costs: Costs) -> int:
    """Crossings with all others when ``net`` runs in the lane ``place``."""
    left = sum(costs[other.target, net.target] for lane in lanes[:place] for other in lane)
    return left + sum(costs[net.target, other.target] for lane in lanes[place + 1 :] for other in lane)
