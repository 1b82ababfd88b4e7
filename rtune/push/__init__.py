"""A trained model on a hub, with a card: `rtune push`."""
