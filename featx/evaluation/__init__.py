"""How good predictions are, how sure one can be of that, and which of several is best."""
