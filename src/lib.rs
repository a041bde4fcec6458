//! orlop is a pod runtime for Linux: it launches pods and owns their volumes
//! from mount to clean-up.
//!
//! The modules stand on one another like the floors of a house; each may use
//! what stands below it in this list, never what stands above:
//! [`cli`], [`shim`], [`pod`], [`storage`], [`volume`], [`image`], [`oci`],
//! [`kube`], [`sys`].

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
pub mod image;
pub mod kube;
pub mod oci;
pub mod pod;
pub mod shim;
pub mod storage;
pub mod sys;
pub mod volume;
