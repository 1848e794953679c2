"""The compiled core under sanitizers: memory, undefined behaviour, leaks (`make asan`)."""
