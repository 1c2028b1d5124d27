"""A trained network as a file for other programs, checked before it is written."""
