"""Scores of result masks: J, F and J&F by the rules of the benchmarks."""

from vosformer.evaluation.metrics import boundary_accuracy, frame_scores, region_similarity, statistics
from vosformer.evaluation.report import ObjectScore, Report, Scores, SequenceScore
from vosformer.evaluation.rules import RULES, Rules
from vosformer.evaluation.runner import evaluate

__all__ = [
    "RULES",
    "ObjectScore",
    "Report",
    "Rules",
    "Scores",
    "SequenceScore",
    "boundary_accuracy",
    "evaluate",
    "frame_scores",
    "region_similarity",
    "statistics",
]
