"""Sagas without a coordinator, told from service to service over NATS JetStream. Needs the extra `[nats]`."""
