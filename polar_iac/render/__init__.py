"""Values to text, one module per format. Nothing here does IO or talks to Polar."""
