"""Scores of result masks: J, F and J&F by the rules of the benchmarks."""

from vosformer.evaluation.metrics import boundary_accuracy, frame_scores, region_similarity, statistics
from vosformer.evaluation.report import ObjectScore, Report, Scores, SequenceScore
from vosformer.evaluation.rules import RULES, Rules
from vosformer.evaluation.runner import evaluate
from vosformer.evaluation.track_report import TrackReport, evaluate_tracks

__all__ = [
    "RULES",
    "ObjectScore",
    "Report",
    "Rules",
    "Scores",
    "SequenceScore",
    "TrackReport",
    "boundary_accuracy",
    "evaluate",
    "evaluate_tracks",
    "frame_scores",
    "region_similarity",
    "statistics",
]
