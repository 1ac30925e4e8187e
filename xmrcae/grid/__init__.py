"""Labelled, lazy fields: coordinates, land, the pyramid and the training set."""
