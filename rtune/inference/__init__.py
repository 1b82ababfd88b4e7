"""A trained model at hand: what it predicts and samples of any image."""
