"""Scoring a trained network on photos at their own size."""
