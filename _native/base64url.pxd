"""Strict base64url (RFC 4648 §5) into a caller's buffer."""

cdef Py_ssize_t b64_decoded_size(Py_ssize_t encoded_len) noexcept nogil
"""Bytes that `encoded_len` characters decode to, or -1 where no canonical text has that length (1 modulo 4)."""

cdef Py_ssize_t b64_decode(const char* source, Py_ssize_t source_len, unsigned char* target, Py_ssize_t capacity) noexcept nogil
"""Decode canonical, unpadded base64url; give the number of bytes written, or -1.

-1 for any byte outside the alphabet (also `=`, white space, `+`, `/`), a length of 1 modulo 4, trailing bits that are
not zero, or a `capacity` below `b64_decoded_size(source_len)`. Never reads outside source[0:source_len], never writes
outside target[0:capacity].
"""
