"""Optuna studies behind `python -m clothseg.train -m sweep=...`."""
