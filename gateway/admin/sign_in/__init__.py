"""Signing in with an OpenID Connect provider: who a token proves, and what that person may do here.

provider      what the provider says of itself, and its keys: fetched, bounded, remembered
tokens        an ID token, held against all that has to be true of it, becomes an Identity
mapping       pure: groups of penstock.yaml make a Landing of an Identity
people        the person in Postgres, brought in step with the Landing
sessions      admin credentials that last for hours
service       these together, as the routes use them
pass_through  to the provider's endpoints for clients whose secret only the gateway has
"""
