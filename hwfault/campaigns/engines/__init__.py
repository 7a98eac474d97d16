"""What runs the trials of a campaign: a network in PyTorch, its graph in onnxruntime, single flips as sparse deltas."""
