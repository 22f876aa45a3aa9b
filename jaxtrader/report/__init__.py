"""A report of a result: one HTML file that opens offline, a figure, and tables as CSV."""
