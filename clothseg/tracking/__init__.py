"""What is kept of a run: the figures, their colours, and the MLflow run that holds them."""
