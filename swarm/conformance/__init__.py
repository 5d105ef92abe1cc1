"""The exams that extensions pass: run them in your own tests.

Room: swarm. Law: an extension point ships its exam (architecture.md). Each function returns when
the promise is kept and raises ConformanceError, which names the broken promise, when it is not.
"""

from swarm.conformance.codec import check_codec
from swarm.conformance.merging import AggregationRule, check_aggregation_rule, check_robust_rule
from swarm.conformance.model import check_model
from swarm.conformance.personalisation import check_personalisation
from swarm.conformance.promises import ConformanceError
from swarm.conformance.strategy import check_strategy

__all__ = [
    "AggregationRule",
    "ConformanceError",
    "check_aggregation_rule",
    "check_codec",
    "check_model",
    "check_personalisation",
    "check_robust_rule",
    "check_strategy",
]
