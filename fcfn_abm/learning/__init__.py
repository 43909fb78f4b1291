"""How agents adapt: one file, one rule. Importing the package registers them all."""
