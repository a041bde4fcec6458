//! The command line of `containerd-shim-orlop-v2`.
