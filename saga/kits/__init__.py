"""The participant kit has a module for each web framework. A service imports it, and nothing else of this library.

`flask.py` is the one that ships. Another is a page of code: it reads a request into a ParticipantRequest, lets
`wiring.run_participant` make the Endpoints that answer it, and sends the ParticipantResponse.
"""
