"""Composed video: scenes of cut-outs with exact masks."""
