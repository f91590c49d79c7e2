"""Drawing dressed figures: a body in a pose, a wardrobe, fabrics, a scene behind, and the easel all is painted on.

All lengths are in figure heights: x to the right, y down, the ground at y = 0, the top of the head near y = -1.
"""
