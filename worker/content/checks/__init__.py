"""What would embarrass us before it is sent: one pure check a question, over a mail taken apart once."""
