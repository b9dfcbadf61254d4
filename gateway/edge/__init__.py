"""The HTTP surface of the data path: the only code on it that knows ASGI.

The path of one request, each step in the file of its name:

    completions   authenticate → read → admit → open the ledger event → relay → settle
    body          a bounded body, decoded at its top level only
    sink          the client's side of the answer: head, keep-alives, back-pressure, ends
    errors        GatewayError → HTTP, in OpenAI's shape, safe from clients that retry on words
    surface       addresses → endpoints, request ids, the last line of defence
    protocol      uvicorn's HTTP/1.1 with bounds on heads, bodies and connections
    server        uvicorn's server, without its signals
"""
