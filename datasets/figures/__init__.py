"""Image-text pairs from the figures of open-access articles: compound figures and captions taken apart and matched."""
