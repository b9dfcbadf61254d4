"""`penstock engine replay`: sends traffic like that of coding agents to an OpenAI-compatible server.

`plan` says who sends how much and when, `conversation` makes the text, `client` speaks HTTP, `sender` runs it all and
`report` adds it up. Nothing is shared with the gateway or the simulated engine: what it counts checks what they count.
"""
