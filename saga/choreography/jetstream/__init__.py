"""The broker of choreographed sagas on NATS JetStream. Needs the extra `[nats]`.

`broker.py` is what others use; `connection.py` connects and keeps the client's event loop on a thread of its own;
`streams.py` makes and searches the streams, `publishing.py` publishes, `consuming.py` and `pulling.py` deliver.
https://docs.nats.io/nats-concepts/jetstream
"""
