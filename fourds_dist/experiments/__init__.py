"""Many runs: sweeps and comparisons."""
