"""The mail that comes back: reports, complaints, notices and opt-outs, read without acting on them."""
