"""How often what was done, and whether that is often enough to say something."""

import collections

# Shares of all faults that are required; aimed at is a little more, so that chance does not miss them.
KINDS = {"coordinator kill": 0.15, "SIGSTOP": 0.15, "network": 0.15}
MOMENTS = {"in evaluation": 0.15, "in a checkpoint": 0.15, "in recovery": 0.15}
PAIRS = 0.10
MARGIN = 0.03
# So many faults say something about shares.
ENOUGH = 300


class Tally:
    def __init__(self):
        self.faults = self.pairs = 0
        self.kinds, self.names, self.moments = collections.Counter(), collections.Counter(), collections.Counter()

    def note(self, faults, moment):
        """One fault, or two that came at once."""
        self.pairs += len(faults) == 2
        for fault in faults:
            self.faults += 1
            self.kinds[fault.kind] += 1
            self.names[fault.name] += 1
            self.moments[moment] += 1

    def behind(self, count, share):
        return count < (share + MARGIN) * self.faults

    def weight(self, weight, counter, name, shares):
        """What has fallen behind its share comes more often."""
        return weight * 4 if name in shares and self.behind(counter[name], shares[name]) else weight

    def pair_is_due(self, chance):
        return chance.random() < (0.5 if self.behind(self.pairs, PAIRS) else 0.1)

    def lines(self, minutes):
        whole = max(1, self.faults)
        yield f"{self.faults} faults in {minutes:.1f} minutes, {self.faults / max(minutes, 1e-9):.1f} a minute"
        for title, counter in (("what", self.names), ("when", self.moments)):
            for name, count in counter.most_common():
                yield f"  {title}  {name:<52} {count:>5} {100 * count / whole:5.1f} %"
        yield f"  what  {'two at once (pairs)':<52} {self.pairs:>5} {100 * self.pairs / whole:5.1f} %"
        for name, count, share in self.demands():
            met = "met" if count >= share * whole else "NOT met"
            yield f"  required: {name} at least {100 * share:.0f} %: {100 * count / whole:.1f} %, {met}"

    def missed(self):
        """The shares that are not met, of faults so many that it is not for want of occasions."""
        if self.faults < ENOUGH:
            return []
        return [name for name, count, share in self.demands() if count < share * self.faults]

    def demands(self):
        demands = [(name, self.kinds[name], share) for name, share in KINDS.items()]
        demands += [(name, self.moments[name], share) for name, share in MOMENTS.items()]
        return [*demands, ("two at once", self.pairs, PAIRS)]
