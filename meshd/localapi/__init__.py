"""The local API: what meshctl and the daemon say to each other over the Unix socket, as pure code that both import.

`API` changes when an old meshctl can no longer understand a new daemon. Within one `API` there are only additions.
"""

API = 1
HOST = "meshd"  # the one Host header that the daemon answers to (formats.md F12)
SCHEMA = 1  # stands in every body and every event
