"""
Endpoint strings that begin with C{hoft:}.
"""

from hoft.streams.parsers import ClientParser, ServerParser

client = ClientParser()
server = ServerParser()
