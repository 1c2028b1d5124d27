"""How good predictions are: metrics, intervals, calibration, comparisons, groups of records, and their figures."""
