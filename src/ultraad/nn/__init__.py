"""Pieces that methods share: prompts, blocks, losses, maps, memory, augmentation, one training loop."""
