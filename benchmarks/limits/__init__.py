"""The simulation of limits: our limiter and its peers against servers of every policy."""
