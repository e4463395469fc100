"""The benchmark. `python -m bench.run`, called from the top of the checkout, is its driver."""
