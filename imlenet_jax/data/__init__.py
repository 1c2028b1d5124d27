"""From a PTB-XL folder on disk to batches of int16 samples with labels. Numpy only."""
