"""Label maps of photos that nobody has labelled."""
