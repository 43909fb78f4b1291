"""What came out: tables, recorder, store."""
