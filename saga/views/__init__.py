"""A saga as people read it: its representation, the audit, the participants' own records, the raw export."""
