"""What runs prove about each other, in words and numbers."""
