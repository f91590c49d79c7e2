"""Where pairs of photo and labels come from, decoding them once, splitting, augmenting, and the tf.data pipeline."""
