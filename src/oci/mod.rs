//! One container: from an OCI specification to a process, through libcontainer.

pub mod defaults;
