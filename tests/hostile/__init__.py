"""Input that wants to do harm: to the process, to its neighbours in the network, to the next request on the line."""
