"""What people and machines do to log in, and what comes of it. Plain values in and out: no HTTP, no pages."""
