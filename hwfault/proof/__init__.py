"""Record and check: a graph, its plan, real inputs and what PyTorch made of them."""
