//! One pod, from its plan to its clean-up.
//!
//! Two processes serve a running pod. The *keeper* ([`keeper`], the shim's
//! main loop) decides: it starts containers in order, restarts them, stops
//! them, writes their logs and the pod's status. The *launcher* ([`launcher`])
//! does: forked from the keeper before anything else, it lives in the pod's own
//! mount namespace, where it mounts volumes and root file systems, and from
//! where containers are cloned. They talk in the orders of [`protocol`].
//!
//! What ends a pod ([`cleanup`]) and what finishes an interrupted life
//! ([`repair`]) need neither: both work on what is recorded, and any process
//! that holds the pod's lock ([`lock`]) may do them, again and again. What claims and
//! volumes ask for outside of the database is done by the [`steward`].

pub mod amounts;
pub mod claims;
pub mod cleanup;
pub mod content;
pub mod control;
pub mod fs_group;
pub mod home;
pub mod keeper;
pub mod launcher;
pub mod lock;
pub mod log_files;
pub mod logs;
pub mod protocol;
pub mod pull_secrets;
pub mod puller;
pub mod references;
pub mod remind;
pub mod repair;
pub mod scope;
pub mod spec;
pub mod status;
pub mod steward;
pub mod users;
pub mod variables;
pub mod volume_mounts;
