"""Fine-tuning: encoding, packing, the data module and the Lightning module."""
