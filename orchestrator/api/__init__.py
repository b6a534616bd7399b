"""The HTTP API, a blueprint for each area: parse the request, call the orchestrator, show its answer.

`create_app` gives each function the orchestrator. Errors are those of saga/errors.py, and
orchestrator/error_answers.py turns them into status codes.
"""
