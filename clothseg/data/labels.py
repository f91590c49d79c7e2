"""The 59 labels of Clothing Co-Parsing."""

from __future__ import annotations

BACKGROUND = 0
# Pixels that count nowhere: neither trained on nor scored, as those outside of a photo that was rotated or padded.
IGNORE = 255

# In the order of `label_list.mat` (Yang, Luo, Lin, CVPR 2014), whose entry 0 is called "null" there.
CLASS_NAMES: tuple[str, ...] = (
    "background", "accessories", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "bra", "bracelet",
    "cape", "cardigan", "clogs", "coat", "dress", "earrings", "flats", "glasses", "gloves", "hair",
    "hat", "heels", "hoodie", "intimate", "jacket", "jeans", "jumper", "leggings", "loafers", "necklace",
    "panties", "pants", "pumps", "purse", "ring", "romper", "sandals", "scarf", "shirt", "shoes",
    "shorts", "skin", "skirt", "sneakers", "socks", "stockings", "suit", "sunglasses", "sweater", "sweatshirt",
    "swimwear", "t-shirt", "tie", "tights", "top", "vest", "wallet", "watch", "wedges",
)  # fmt: skip
