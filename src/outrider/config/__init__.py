"""Configuration: ``sections`` lies below the drivers, ``load`` above them."""
