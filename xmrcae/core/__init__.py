"""The network and its training: tensors only, no labels."""
