"""Side by side: clothseg and what one would otherwise run. `python -m benchmarks` is the command; see README.md."""
