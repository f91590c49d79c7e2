"""clothseg: experiment-tracked research on clothing segmentation.

Importing the package does no work: it loads neither TensorFlow nor MLflow.
"""

__version__ = "0.1.0"
