"""Knowledge distillation for multi-label image classification."""
