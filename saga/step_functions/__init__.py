"""A saga as a state machine of AWS Step Functions."""
