"""The pages on which people log in, and look after their account. They work without scripts."""
