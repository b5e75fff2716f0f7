"""The cost of the collection, each time compared with another way to do the same: ``make bench``."""
