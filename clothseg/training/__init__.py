"""Phases, metrics and callbacks: how a model is trained. Knows nothing of Hydra or MLflow."""
