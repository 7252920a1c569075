"""Scores of result masks: J, F and J&F by the rules of the benchmarks."""

from vosformer.evaluation.metrics import boundary_accuracy, frame_scores, region_similarity, statistics
from vosformer.evaluation.report import ObjectScore, Report, Scores, SequenceScore
from vosformer.evaluation.rules import RULES, Rules
from vosformer.evaluation.runner import evaluate
from vosformer.evaluation.track_report import TrackScores, evaluate_tracks
from vosformer.evaluation.vot import VotReport
from vosformer.evaluation.vot_files import evaluate_vot

__all__ = [
    "RULES",
    "ObjectScore",
    "Report",
    "Rules",
    "Scores",
    "SequenceScore",
    "TrackScores",
    "VotReport",
    "boundary_accuracy",
    "evaluate",
    "evaluate_tracks",
    "evaluate_vot",
    "frame_scores",
    "region_similarity",
    "statistics",
]
