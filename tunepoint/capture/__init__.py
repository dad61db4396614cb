"""The capture store: requests with their answers and feedback, and the examples made of them."""
