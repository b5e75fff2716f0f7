"""What the collection costs, each time against something else that does the same: ``make bench``."""
