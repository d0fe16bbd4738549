"""Reports: what a person looks at, from plots of a fit to a page with pictures."""
