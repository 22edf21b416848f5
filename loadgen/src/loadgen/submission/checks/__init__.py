"""The checks, a module a part of the tree. Each is a function that yields `Finding`s; none raises for a bad file."""
