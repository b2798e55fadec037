"""What an attacker tries, and how it ends: refused, or bounded."""
