"""Configuration: ``sections`` and ``drivers`` lie below the drivers, ``moved`` and ``load`` above them."""
