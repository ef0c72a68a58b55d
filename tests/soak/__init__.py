"""Long runs, by hand: they say what they measure. The suite runs short versions of them."""
