//! The objects that users declared, and where they are kept.
//!
//! One SQLite database (`orlop.db` in the data root) holds every object with
//! its status and its events. Any number of processes share it: the command
//! line, and one keeper per running pod. There is no daemon between them, so
//! the database's own locks are what keeps them apart.
//!
//! - [`roots`] says where everything lies on this machine;
//! - [`store`] opens the database and makes each change one transaction;
//! - [`schema`] holds the tables and how older databases become new ones;
//! - [`pods`] reads and writes pods, [`objects`] what is only declared, [`any`] both;
//! - [`progress`] is what a pod's keeper tells of it;
//! - [`apply`] decides what applying a manifest changes;
//! - [`binder`] decides which claim gets which volume, [`settle`] makes it so in the
//!   transaction of whatever changed, [`work`] keeps what is to be done outside;
//! - [`reclaim`] empties and deletes what volumes stand for, [`provisioner`] makes it;
//! - [`untold`] keeps which changes the pods that they concern do not know yet;
//! - [`events`] keeps what happened to an object for an hour.

pub mod any;
pub mod apply;
pub mod binder;
pub mod change;
pub mod events;
mod kept;
pub mod objects;
pub mod pods;
pub mod progress;
pub mod provisioner;
pub mod reclaim;
pub mod roots;
pub mod schema;
pub mod settle;
pub mod store;
pub mod untold;
pub mod watch;
pub mod work;
pub mod work_later;
