"""The admin API over HTTP, on the admin listener: who asks, what is read, what is answered. It decides nothing."""
