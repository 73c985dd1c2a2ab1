"""What must be asked outside: the sites that a mail links to, a spam filter, the DNS."""
