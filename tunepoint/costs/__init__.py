"""Usage turned into money, and fixed cost weighed against running cost."""
