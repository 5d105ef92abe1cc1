"""What records say about records of other logs: steps 11 and 12. Room: ledger. docs/ledger.md §10.

Records come here in the order of their lamport numbers, so what an honest one refers to by ack
has been seen. What has not been seen yet is kept until it comes or until all logs are over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias, final

from .audit_gossip import GossipAudit
from .audit_log import Link, LogAudit
from .bodies import Codec, Kind, Rule
from .chain import TIME_AHEAD_MAX_MS
from .charter import Charter
from .errors import VerificationError
from .report import Finding
from .roster import Roster
from .rules import CODEC_OF_NAME, RULE_OF_NAME, rule_parameters
from .weighing import Weighing
from .weights import weights_micro

Log: TypeAlias = tuple[int, int]
_SWEEP_MIN: Final = 4_096
_NEVER: Final = (-1, -1)


@final
class AckAudit:
    """Step 11: acks name records that exist and lie before."""

    def __init__(
        self, logs: Mapping[Log, LogAudit], roster: Roster, forked: Collection[Log] = ()
    ) -> None:
        self._logs = logs
        self._roster = roster
        self._forked = forked  # proven: who names another branch may be honest
        self.contested = 0
        for log in logs.values():
            others = {key: one for key, one in logs.items() if key[0] != log.author}
            log.links = {key: Link(target) for key, target in others.items()}
        self.void = 0  # acks of what a later cut took away: not judged
        # Of another branch than the one that a later cut kept, or of what is still to come of that.
        self._before_cuts: list[tuple[LogAudit, int, list[Any]]] = []
        self.latest_ms = 0  # highest clock of all logs so far: most records need no closer look

    def check(self, log: LogAudit, value: list[Any]) -> None:
        """E_DEP_SELF, E_DEP_UNKNOWN, E_TIME_CAUSAL, E_ACK_BACKWARD; doubts are kept."""
        links, version = log.links, value[6]
        in_time = value[10] + TIME_AHEAD_MAX_MS >= self.latest_ms
        for ack in value[11]:
            author, epoch, seq, id_ = ack
            link = links.get((author, epoch))
            if (  # the quick look; whatever it does not accept is looked at closely
                link is not None
                and in_time
                and seq >= link.seq
                and link.roster == version
                and link.ids.startswith(id_, seq << 5)
            ):
                link.seq = seq
            else:
                self._check_closely(log, value, ack, link)

    def _check_closely(
        self, log: LogAudit, value: list[Any], ack: list[Any], link: Link | None
    ) -> None:
        author, epoch, seq, id_ = ack
        if author == log.author:
            raise VerificationError("E_DEP_SELF", "a record acks its own author's log")
        if link is None:
            self._doubt(log, value, ack)
            return
        if (author, epoch) in self._forked and not link.ids.startswith(id_, seq << 5):
            self.contested += 1
            return
        if seq < link.seq:
            raise VerificationError(
                "E_ACK_BACKWARD",
                f"ack of {author}/{epoch}/{seq}",
                expected=f"at least seq {link.seq}",
            )
        target = link.target
        if not target.ids.startswith(id_, seq << 5):
            self._doubt(log, value, ack)
            return
        if target.times[seq] > value[10] + TIME_AHEAD_MAX_MS:
            raise VerificationError(
                "E_TIME_CAUSAL",
                f"acks {author}/{epoch}/{seq}, whose clock is more than a day ahead",
                expected=f"time_ms {target.times[seq] - TIME_AHEAD_MAX_MS} or later",
            )
        if value[6] != link.roster:
            link.turn_to(value[6])
        link.seq = seq

    def _doubt(self, log: LogAudit, value: list[Any], ack: list[Any]) -> None:
        """An ack that nothing answers (yet): refuse what is certain, keep the first other one."""
        author, epoch, seq, _ = ack
        try:
            self._roster.key(author, epoch)
        except VerificationError as error:
            raise VerificationError("E_DEP_UNKNOWN", error.message) from None
        if (author, epoch) in self._forked:
            self.contested += 1
            return
        if self._roster.is_void(author, epoch, seq, by_version=value[6]):
            self.void += 1
            return
        target = self._logs.get((author, epoch))
        if target is not None and self._roster.is_before_cut(author, epoch, by_version=value[6]):
            self._before_cuts.append((log, value[4], ack))
            return
        if target is not None and seq < len(target):
            raise VerificationError(
                "E_DEP_UNKNOWN",
                f"acks another record for {author}/{epoch}/{seq} than the bundles hold",
                expected=f"id {bytes(target.ids[seq * 32 : seq * 32 + 32]).hex()}",
            )
        if log.suspect is None:
            log.suspect = (value[4], ack)

    def settle(self) -> None:
        """Decide the doubts once every log is over. E_MISSING_AUTHOR, E_OMISSION, E_CAUSALITY …."""
        for log in self._logs.values():
            if log.suspect is not None:
                own_seq, ack = log.suspect
                error = self._judge(ack)
                if error is not None:
                    step = 4 if error.code == "E_MISSING_AUTHOR" else 11
                    log.refuse(Finding(step, error), own_seq)
        for log, own_seq, ack in self._before_cuts:
            target = self._logs[ack[0], ack[1]]
            if target.ids.startswith(ack[3], ack[2] << 5):
                error = self._judge(ack)
                if error is not None:
                    log.refuse(Finding(11, error), own_seq)
            else:
                self.void += 1

    def _judge(self, ack: list[Any]) -> VerificationError | None:
        author, epoch, seq, id_ = ack
        name = f"{author}/{epoch}/{seq}"
        target = self._logs.get((author, epoch))
        if target is None:
            if any(one == author for one, _ in (*self._logs, *self._forked)):
                return VerificationError(
                    "E_OMISSION",
                    f"acks {name}; log {author}/{epoch} has been left out of the bundles",
                )
            return VerificationError(
                "E_MISSING_AUTHOR", f"acks {name}, and no bundle has a log of author {author}"
            )
        if seq >= len(target):
            if target.damaged:
                return None  # the damaged file is refused already; this record may be honest
            return VerificationError(
                "E_OMISSION", f"acks {name}; that record has been left out of the bundles",
                expected=f"seq up to {len(target) - 1}",
            )  # fmt: skip
        if target.ids[seq * 32 : seq * 32 + 32] != id_:
            return VerificationError(
                "E_DEP_UNKNOWN", f"acks another record for {name} than the bundles hold"
            )
        return VerificationError("E_CAUSALITY", f"acks {name}, whose lamport is not below its own")


@final
class _Merged:
    """What one log has merged: of every author the newest contribution, and the newest attempt."""

    __slots__ = ("attempt", "newest")

    def __init__(self) -> None:
        self.newest: dict[int, tuple[int, int]] = {}  # author → (epoch, seq)
        self.attempt = -1  # of round zero

    def after(self, body: list[Any], *, again: bool) -> _Merged:
        """Return what it is after one more aggregation. E_AGG_INPUT.

        again: a model may be averaged again (gossip that is not buffered).
        """
        rule, parameters, inputs, _, _ = body
        result = _Merged()
        result.newest, result.attempt = self.newest, self.attempt
        if rule == Rule.MOMENTS:
            result.attempt = parameters[0] if parameters else 0
            if len(parameters) > 1 or result.attempt <= self.attempt:
                raise VerificationError(
                    "E_AGG_INPUT",
                    f"attempt {parameters} of round 0",
                    expected=f"one number above {self.attempt}",
                )
            return result
        if again:
            return self
        result.newest = dict(self.newest)
        for author, epoch, seq, _, _ in inputs:
            last = self.newest.get(author, _NEVER)
            if (epoch, seq) <= last:
                raise VerificationError(
                    "E_AGG_INPUT",
                    f"input {author}/{epoch}/{seq} after this log has merged "
                    f"{author}/{last[0]}/{last[1]}",
                    expected="every contribution at most once, newer after older",
                )
            result.newest[author] = epoch, seq
        return result


_NOTHING: Final = _Merged()  # the same for all, so that logs that agree share every step


@final
class AggregationAudit:
    """Step 12: the charter's rule, and inputs that exist and weigh what the charter says."""

    def __init__(
        self,
        logs: Mapping[Log, LogAudit],
        charter: Charter,
        roster: Roster,
        forked: Collection[Log] = (),
        *,
        weighing: Weighing,
    ) -> None:
        self._logs = logs
        self._weighing = weighing
        self._roster = roster
        self._forked = forked
        self.contested = 0  # aggregations with an input of a forked log that does not stand
        self.void = 0  # aggregations with an input that a later cut took away: not judged
        self._policy = charter.aggregation
        self._rule = RULE_OF_NAME[self._policy.rule]
        self._codec_of_rule = {
            self._rule: CODEC_OF_NAME[self._policy.codec], Rule.MOMENTS: Codec.MOMENTS
        }  # fmt: skip
        topology = charter.topology
        self._gossip = GossipAudit(topology, roster) if topology is not None else None
        self._again = self._policy.is_gossip and not self._policy.is_buffered
        self._staleness_max = charter.rounds.staleness_max
        self._merged: dict[Log, _Merged] = {}  # what each log's aggregations have named so far
        self._step: tuple[_Merged, list[Any], _Merged] | None = None
        self._bucketed = charter.privacy.sample_count == "bucket"
        self._good: tuple[int, list[Any]] | None = None  # members that agree write the same
        self._waiting: list[tuple[LogAudit, list[Any]]] = []
        self._sweep_at = _SWEEP_MIN

    def check(self, log: LogAudit, value: list[Any]) -> None:
        """E_AGG_INPUT, E_AGG_RULE, E_AGG_WEIGHT; one whose inputs are still to come waits."""
        self._follow((log.author, log.epoch), value[12])
        if self._is_good(value):
            return
        last = self._waiting[-1][1] if self._waiting else None
        # One that equals the last that waits waits as well.
        waits = last is not None and last[12] is value[12] and last[8] == value[8]
        waits = waits and self._gossip is None
        if waits or not self._judge(value, over=False):
            self._wait(log, value)

    def _follow(self, log: Log, body: list[Any]) -> None:
        """Nothing is merged twice by one log. Logs that agree take the same steps, worked out once."""
        before = self._merged.get(log, _NOTHING)
        step = self._step
        if step is None or step[0] is not before or step[1] is not body:
            after = before.after(body, again=self._again)
            step = self._step = (before, body, after)
        self._merged[log] = step[2]

    def _is_good(self, value: list[Any]) -> bool:
        good = self._good  # what is right for one author of gossip need not be for another
        return (
            self._gossip is None
            and good is not None
            and good[1] is value[12]
            and good[0] == value[8]
        )

    def _wait(self, log: LogAudit, value: list[Any]) -> None:
        self._waiting.append((log, value))
        if len(self._waiting) >= self._sweep_at:
            self.settle(over=False)
            # Doubling what is left keeps the sweeps together linear.
            self._sweep_at = 2 * len(self._waiting) + _SWEEP_MIN

    def settle(self, *, over: bool) -> None:
        """Look again at those that wait; ``over``: nothing more will come."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            log, value = item
            if self._is_good(value):
                continue
            try:
                if not self._judge(value, over=over):
                    self._waiting.append(item)
            except VerificationError as error:
                log.refuse(Finding(12, error), value[4])

    def _judge(self, value: list[Any], *, over: bool) -> bool:
        """Return True if this is right or cannot be judged any more, False if it must wait."""
        round_, body = value[8], value[12]
        rule, parameters, inputs, _, _ = body
        if not inputs:
            raise VerificationError("E_AGG_INPUT", "an aggregation without inputs")
        if rule == Rule.MOMENTS and round_ != 0:
            raise VerificationError(
                "E_AGG_INPUT", "rule MOMENTS outside round 0", expected="round 0"
            )
        self._check_rule(rule, parameters, len(inputs))
        samples, staleness = [], []
        last_author = -1
        codec = self._codec_of_rule[rule]
        for author, epoch, seq, id_, _ in inputs:
            if author == last_author:
                raise VerificationError("E_AGG_INPUT", f"author {author} is an input twice")
            last_author = author
            target = self._logs.get((author, epoch))
            if target is None or seq >= len(target):
                if not over:
                    return False
                self._excuse(target, author, epoch, seq, by_version=value[6])
                return True
            if (author, epoch) in self._forked and not target.ids.startswith(id_, seq << 5):
                self.contested += 1
                return True
            if not target.ids.startswith(id_, seq << 5) and self._roster.is_before_cut(
                author, epoch, by_version=value[6]
            ):
                self.void += 1
                return True
            self._check_input(target, seq, id_, round_, codec)
            samples.append(target.samples[seq])
            staleness.append(round_ - target.rounds[seq])
        self._check_base(rule, round_, staleness)
        mixing: Sequence[int] = ()
        if self._gossip is not None and rule != Rule.MOMENTS:
            authors = [one[0] for one in inputs]
            late = self._policy.is_buffered  # then the own one may be as late as any
            own = any(
                a == value[2] and (late or t == 0) for a, t in zip(authors, staleness, strict=True)
            )
            mixing = self._gossip.mixing(value[2], round_, value[6], authors, has_own=own)
        self._check_weights(value, samples, staleness, mixing)
        self._good = (round_, body)
        return True

    def _check_rule(self, rule: int, parameters: list[int], inputs: int) -> None:
        """E_AGG_RULE: the charter's, with what it withstands among so many inputs."""
        if rule == Rule.MOMENTS:
            return  # where it belongs, and its attempts, are checked elsewhere
        right = rule_parameters(self._policy, inputs)
        if (rule, tuple(parameters)) != (self._rule, right):
            raise VerificationError(
                "E_AGG_RULE",
                f"rule {Rule(rule).name} {parameters}",
                expected=f"{self._rule.name} {list(right)}",
            )

    def _check_base(self, rule: int, round_: int, staleness: list[int]) -> None:
        """E_AGG_INPUT: where a merge starts from a base, an input of the round itself names it."""
        if self._policy.needs_base and rule != Rule.MOMENTS and 0 not in staleness:
            raise VerificationError(
                "E_AGG_INPUT", f"no input is of round {round_} itself", expected="at least one"
            )

    def _excuse(
        self, target: LogAudit | None, author: int, epoch: int, seq: int, *, by_version: int
    ) -> None:
        """Say why an input that nobody shows cannot be judged, or refuse it. E_AGG_INPUT."""
        if target is not None and target.damaged:
            return
        if (author, epoch) in self._forked:
            self.contested += 1
        elif self._roster.is_void(author, epoch, seq, by_version=by_version):
            self.void += 1
        else:
            raise VerificationError("E_AGG_INPUT", f"input {author}/{epoch}/{seq} is in no bundle")

    def _check_weights(
        self,
        value: list[Any],
        samples: list[int],
        staleness: list[int],
        mixing: Sequence[int],
    ) -> None:
        """E_AGG_WEIGHT: all 0 for moments, else what the charter says."""
        inputs = value[12][2]
        expected: list[int] | None = [0] * len(inputs)
        if value[12][0] != Rule.MOMENTS:
            expected = self._weights(value[8], inputs, samples, staleness, mixing)
        if expected is None or [one[4] for one in inputs] == expected:
            return
        author, weight, right = next(
            (one[0], one[4], right)
            for one, right in zip(inputs, expected, strict=True)
            if one[4] != right
        )
        raise VerificationError(
            "E_AGG_WEIGHT", f"author {author} weighs {weight}", expected=str(right)
        )

    def _weights(
        self,
        round_: int,
        inputs: list[Any],
        samples: list[int],
        staleness: list[int],
        mixing: Sequence[int],
    ) -> list[int] | None:
        """Return what inputs weigh; None where reputation counts and something below them is not shown."""
        factors = self._weighing.factors_micro(round_, [(one[0], one[1], one[2]) for one in inputs])
        if factors is None or (factors and self._forked):
            self.contested += bool(self._forked)
            self.void += not self._forked
            return None
        return weights_micro(
            samples,
            self._policy,
            staleness_rounds=staleness,
            mixing_micro=mixing,
            factors_micro=factors,
        )

    def _check_input(
        self, target: LogAudit, seq: int, id_: bytes, round_: int, codec: Codec
    ) -> None:
        if (
            target.codecs[seq] == codec  # that of another kind is 0
            and 0 <= round_ - target.rounds[seq] <= self._staleness_max
            and target.ids[seq * 32 : seq * 32 + 32] == id_
            and not self._bucketed
        ):
            return
        name = f"input {target.author}/{target.epoch}/{seq}"
        if target.ids[seq * 32 : seq * 32 + 32] != id_:
            raise VerificationError("E_AGG_INPUT", f"{name} has another id in the bundles")
        if target.kinds[seq] != Kind.CONTRIBUTION:
            raise VerificationError("E_AGG_INPUT", f"{name} is no CONTRIBUTION")
        if target.rounds[seq] > round_:
            raise VerificationError(
                "E_AGG_INPUT", f"{name} is of round {target.rounds[seq]}", expected=f"<= {round_}"
            )
        if round_ - target.rounds[seq] > self._staleness_max:
            raise VerificationError(
                "E_AGG_INPUT",
                f"{name} is of round {target.rounds[seq]}, too late for round {round_}",
                expected=f"at most {self._staleness_max} rounds before",
            )
        if target.codecs[seq] != codec:
            raise VerificationError("E_AGG_INPUT", f"{name} has another codec than the charter's")
        samples = target.samples[seq]
        if self._bucketed and samples & (samples - 1):
            raise VerificationError(
                "E_AGG_INPUT", f"{name} gives {samples} samples", expected="a power of two"
            )
