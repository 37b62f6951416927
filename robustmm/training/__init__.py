"""Training with skorch: the net, its callbacks, checkpoints and devices."""
