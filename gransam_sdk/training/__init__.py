"""From class folders to a trained head."""
