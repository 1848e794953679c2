"""SCIM over HTTP: who may call, what is read, what is answered. It decides nothing."""
