"""Messages between programs, beside HTTP on the same links; see L{hoft.interfaces.IMessageLink}."""
