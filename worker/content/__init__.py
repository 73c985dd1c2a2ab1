"""What is said: an appeal's files, the look and one person's fields into the bytes of a mail. Pure."""
