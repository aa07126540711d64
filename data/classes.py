"""The classes of data sets whose list is closed: what their captions name, and what a balanced table of prompts holds.

Retinopathy by the International Clinical Diabetic Retinopathy scale (Wilkinson et al. 2003), as APTOS 2019 and EyePACS grade it;
lesions as in the ISIC 2019 challenge.
"""

from __future__ import annotations

from itertools import product

RETINOPATHY = ("no diabetic retinopathy", "mild non-proliferative diabetic retinopathy",
               "moderate non-proliferative diabetic retinopathy", "severe non-proliferative diabetic retinopathy",
               "proliferative diabetic retinopathy")  # levels 0 to 4
EYES = {"left": "left eye", "right": "right eye"}
LESIONS = {"MEL": "melanoma", "NV": "melanocytic nevus", "BCC": "basal cell carcinoma", "AK": "actinic keratosis",
           "BKL": "benign keratosis-like lesion", "DF": "dermatofibroma", "VASC": "vascular lesion", "SCC": "squamous cell carcinoma",
           "UNK": "unknown lesion"}

# What a class-balanced table is made of, by caption template. Of unknown lesions the published training images have none.
COMBINATIONS: dict[str, list[tuple[str, ...]]] = {
    "retinopathy": [tuple(sorted(pair)) for pair in product(RETINOPATHY, EYES.values())],
    "isic": [(name,) for code, name in LESIONS.items() if code != "UNK"],
}
