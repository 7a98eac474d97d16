"""What autograd has recorded."""


def nodes_behind(out):
    """All nodes that a backward pass from a tensor would run."""
    seen, waiting = set(), [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return seen
