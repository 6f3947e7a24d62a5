"""What fluence_async costs, beside its peers in one run: `python -m benchmarks`."""
