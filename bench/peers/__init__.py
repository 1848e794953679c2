"""The servers that are compared: one file each, all with the same tokens, the same requests and one worker."""
