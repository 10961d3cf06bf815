"""`discover review RUN`: a person reads the report, decides, and labels responses blind; a small web application on loopback only.

`session` knows what stands, `forms` reads decisions, `guard` lets in whoever has the token and nobody else, `app` has the pages, `server`
serves them.
"""
