"""The benchmark of speed: `make benchmark`. It prints ratios and writes `reports/performance/`."""
