"""Results as an RO-Crate: a package of data with a description that machines read."""

from fcfn_abm.crate.pack import write_crate

__all__ = ["write_crate"]
