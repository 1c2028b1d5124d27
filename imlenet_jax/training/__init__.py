"""The training step, on one device or many, the loop around it, and what makes a run stop and go on."""
