"""How often intervals, tests and answers are wrong: simulated with the code's own functions."""
