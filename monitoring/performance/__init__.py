"""How good the champion is: measured from labels, or estimated without them."""
