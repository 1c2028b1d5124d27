"""Where a network looked: attention, saliency, how faithful they are, and the pages that show them."""
