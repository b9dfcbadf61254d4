"""The walk through the control-plane API: every operation, as everybody, with ids that are one's own and that are not.

world    two organizations, two teams in one, people of every role, and who may know of what
table    what each operation refers to and whom it answers: an operation that is not there fails the walk
calls    one request of an operation, with one reference put in another's place
state    the whole database as text, to be compared
"""
