"""The live window: a market, or the record of one, in the browser."""
