"""The manifest `meters.yaml`: read with every rule of Polar's, and written back as lines."""
