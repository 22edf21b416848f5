"""Official files: what they are (`asset`), the `fetch` command, and how a file joins a folder, whole or not at all.

`fetch` asks `cache` for what another benchmark has got, else `download` for the file: `transfer` keeps the connections
busy, `http` understands one answer, `ranges` knows which bytes are there. `archive` unpacks, `files` writes safely.
"""
