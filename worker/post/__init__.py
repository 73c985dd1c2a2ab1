"""The relay: one pipelined SMTP conversation, and one thread that drives many of them."""
