"""What a charter chose for learning together, in plain words: strategy, rule, codec, own models, the end.

Room: node. Law: one sentence a choice, with what it costs or protects from; the default choices of which
nothing needs to be said say nothing. Imports no torch.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from ledger.charter import AggregationPolicy, Charter
from ledger.rules import liars_among

STRATEGY: Final[Mapping[str, str]] = {
    "fedavg": "FedAvg: each site trains from the common model, and the next one is put together from what came out",
    "fedprox": "FedProx: as FedAvg, and every step is pulled back to the common model (proximal_mu)",
    "scaffold": "SCAFFOLD: sites correct their steps by how they differ from all; updates are twice as long",
    "fedadam": "FedAdam: the common model takes an Adam step towards what came out; results are three models long",
    "fedyogi": "FedYogi: the common model takes a Yogi step towards what came out; results are three models long",
    "fedadagrad": "FedAdagrad: the common model takes an Adagrad step towards what came out; results are three models long",
    "diloco": "DiLoCo: the common model moves on with Nesterov momentum; results are two models long",
    "per_fedavg": "Per-FedAvg: a common model that each site adapts with one step of its own",
    "ifca": "IFCA: several common models; each site trains the one that fits its patients best",
}
RULE: Final[Mapping[str, str]] = {
    "mean": "the weighted mean: fast and exact, and one liar can move it",
    "norm_clipped_mean": "the mean of updates cut to the median length",
    "trimmed_mean": "of each value the smallest and largest are dropped, the rest averaged",
    "median": "of each value the middle one",
    "geometric_median": "the point with the least sum of distances to all updates",
    "krum": "the one update whose neighbours are nearest",
    "multi_krum": "the mean of the updates whose neighbours are nearest",
    "centered_clipping": "the mean of updates clipped around the result",
}
CODEC: Final[Mapping[str, str]] = {
    "float16": "updates are sent with half the bytes (float16)",
    "int8": "updates are sent with about a quarter of the bytes (int8)",
    "int4": "updates are sent with about an eighth of the bytes (int4)",
    "ternary": "updates are sent as −, 0 or + of a common size: about 20 times fewer bytes",
    "sign": "updates are sent as plus or minus: about 30 times fewer bytes",
    "top_k": "of each update the largest {keep} of the values are sent",
    "top_k_int8": "of each update the largest {keep} of the values are sent, each in one byte",
}
FEEDBACK: Final = "; what a site did not send it keeps and adds to its next update"
OWN_MODEL: Final[Mapping[str, str]] = {
    "intercept": "each site shifts the common model's scores to its own share of cases; nothing of that is sent",
    "fine_tune": "each site tunes the common model by up to {steps} steps, if its own patients say that it helps",
    "fedbn": "each site keeps its own batch norm layers; only the other layers are averaged",
    "ditto": "each site trains a model of its own beside the common one, {steps} steps a round",
}


def describe_learning(charter: Charter, members: int) -> Iterator[str]:
    """Yield what the charter chose. members: of the roster in force, for how many may lie."""
    policy = charter.aggregation
    yield STRATEGY[policy.strategy] + _details(policy)
    yield f"merged by {RULE[policy.rule]}{_withstands(policy, members)}"
    if policy.codec in CODEC:
        yield CODEC[policy.codec].format(keep=f"{policy.keep_share:.3%}".rstrip("0%").rstrip(".") + " %") + FEEDBACK  # fmt: skip
    own = charter.personalisation
    if own.mode in OWN_MODEL:
        yield OWN_MODEL[own.mode].format(steps=own.steps)
    if charter.training.trained:
        yield f"only these tensors are trained and sent: {', '.join(charter.training.trained)}"
    if charter.stopping.patience:
        yield (
            f"training ends when {charter.stopping.patience} rounds in a row bring no better validation "
            "loss; the best round's model is released"
        )


def _details(policy: AggregationPolicy) -> str:
    if policy.strategy == "ifca":
        return f"; {policy.clusters} models"
    return f"; its rate is {policy.server_rate:g}" if policy.server_rate else ""


def _withstands(policy: AggregationPolicy, members: int) -> str:
    if policy.rule == "mean":
        return ""
    liars = liars_among(members, policy.liars_share_micro)
    mixing = ", after each was averaged with its nearest" if policy.neighbour_mixing else ""
    who = "1 liar" if liars == 1 else f"{liars} liars"
    return f"{mixing}; withstands {who} among {members} updates"
