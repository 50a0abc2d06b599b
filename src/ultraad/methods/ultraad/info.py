"""What UltraAD is, and where it differs from its paper."""

from __future__ import annotations

from ultraad.methods import MethodInfo, Needs

INFO = MethodInfo(
    name="ultraad",
    title="UltraAD: fine-grained ultrasound anomaly classification via few-shot CLIP adaptation",
    paper="Zhou et al., MICCAI 2025",
    url="https://arxiv.org/abs/2506.19694",
    reference="none released; written from the paper",
    licence="Apache-2.0",
    outputs=frozenset({"score", "map", "classes"}),
    needs=Needs(abnormal_images=True, class_labels=True),
    zero_shot=True,
    idea="compares image and patches with normal and abnormal prompts and with a memory of texts and images",
    learned="prompt words, a small network after the class token, patch adapters, their fusion, and image keys",
    deviations=(
        "adapters start as the projection of the tower instead of random (adapter.*)",
        "fusion adds to the prototypes what they attend to (pif.residual=add)",
        "adapted and zero-shot logits are averaged (prior.*); the paper has no zero-shot share",
        "classes with different numbers of images count the same in votes and loss (cls.balance)",
        "the map is drawn from finer patches than the tower's, where the backbone has them (map.fine)",
        "a prior of where lesions lie is added to the map, where the backbone has one (map.location)",
        "segmentation losses at four pixels per patch, the Dice of the lesion only in images with one (loss.*)",
    ),
)
