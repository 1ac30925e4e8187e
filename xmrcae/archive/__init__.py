"""A dataset kept as codes and what they leave, opened at any level, every value within a bound."""
