"""Augmentation of whole batches of photos and labels together."""
