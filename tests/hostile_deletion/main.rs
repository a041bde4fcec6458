//! Deletion against trees that someone hostile made: whatever they hold, and
//! whatever is done to them meanwhile, nothing outside is touched.

mod links;
mod mounts;
mod shapes;
mod support;
mod trash;
