"""This folder shows sagas to people: representation, searches, the audit, participants' records, the raw export."""
