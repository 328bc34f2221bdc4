"""Seeds: a file that fills the embedded Polar with meters, events, products, benefits and customers."""
