"""How each kind of model is asked: `style.py` is the seam, the others are the styles."""
