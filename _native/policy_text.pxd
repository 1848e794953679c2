"""Where the statements of a policy text begin and end."""
