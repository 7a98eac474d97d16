"""Brevitas' integer fake quantizers, each as one operator for a while."""
