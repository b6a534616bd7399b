"""Databases: engines, column types, tables and statements; group commit and statement batches, which buy speed only."""
