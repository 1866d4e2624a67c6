"""Sources of labelled images: where examples come from, by index."""
