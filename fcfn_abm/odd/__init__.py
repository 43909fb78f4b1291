"""The ODD description of the model (Grimm et al. 2020), generated from the program itself."""

from fcfn_abm.odd.document import describe_differences, describe_model

__all__ = ["describe_differences", "describe_model"]
