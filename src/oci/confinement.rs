//! The last that happens to a process before it executes its program: its filter for
//! system calls.
//!
//! Who has not given up new privileges must have CAP_SYS_ADMIN to load a filter
//! (seccomp(2)). A program that is to have neither gets its filter while the process
//! still has that capability, and CAP_SETPCAP to take both out of its bounding set;
//! then they go. So the filter is loaded last in either case, and need not allow what
//! comes before, but for capset(2) in the latter.

use std::io;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
};

use super::error::sentence;
use super::seccomp::Filter;

/// A filter and what it takes to load it.
pub(crate) struct Confinement {
    filter: Filter,
    surplus: Option<Surplus>,
}

/// Capabilities that a process has for the sake of its filter.
struct Surplus {
    bounding: CapabilitySet,
    afterwards: CapabilitySets,
}

impl Confinement {
    /// Prepares `process` for `filter`: it gets the capabilities that it lacks.
    pub(crate) fn new(filter: Filter, process: &mut Process) -> Self {
        let escalates = process.no_new_privileges() != Some(true);
        let mut capabilities = process.capabilities().clone();
        let lacking = capabilities.as_mut().filter(|_| escalates);
        let surplus = lacking.and_then(Surplus::add_to);
        if surplus.is_some() {
            process.set_capabilities(capabilities);
        }
        Self { filter, surplus }
    }

    /// Loads the filter, and drops what was there for it.
    ///
    /// # Errors
    /// What the kernel says, with the step.
    pub(crate) fn apply(&self) -> io::Result<()> {
        let failed = |step: &str, error: io::Error| {
            io::Error::other(format!("cannot {step}: {}", sentence(&error)))
        };
        if let Some(surplus) = &self.surplus {
            for capability in surplus.bounding.iter() {
                remove_capability_from_bounding_set(capability)
                    .map_err(|error| failed("lower the bounding set", error.into()))?;
            }
        }
        self.filter
            .load()
            .map_err(|error| failed("load the seccomp filter", error))?;
        if let Some(surplus) = &self.surplus {
            set_capabilities(None, surplus.afterwards).map_err(|error| {
                failed(
                    "drop capabilities under the seccomp filter, which must allow capset",
                    error.into(),
                )
            })?;
        }
        Ok(())
    }
}

impl Surplus {
    /// Adds what is missing; `None` when nothing is.
    fn add_to(capabilities: &mut LinuxCapabilities) -> Option<Self> {
        let set = |set: &Option<Capabilities>| set.clone().unwrap_or_default();
        let mut bounding = set(capabilities.bounding());
        let mut permitted = set(capabilities.permitted());
        let mut effective = set(capabilities.effective());
        if effective.contains(&Capability::SysAdmin) {
            return None;
        }
        let inheritable = set(capabilities.inheritable());
        let afterwards = CapabilitySets {
            effective: bits(&effective),
            permitted: bits(&permitted),
            inheritable: bits(&inheritable),
        };
        let mut surplus = CapabilitySet::empty();
        for needed in [Capability::SysAdmin, Capability::Setpcap] {
            if bounding.insert(needed) {
                surplus |= bit(needed);
            }
            permitted.insert(needed);
            effective.insert(needed);
        }
        capabilities
            .set_bounding(Some(bounding))
            .set_permitted(Some(permitted))
            .set_effective(Some(effective));
        Some(Self {
            bounding: surplus,
            afterwards,
        })
    }
}

fn bits(set: &Capabilities) -> CapabilitySet {
    set.iter().map(|capability| bit(*capability)).collect()
}

fn bit(capability: Capability) -> CapabilitySet {
    use libcontainer::capabilities::CapabilityExt;
    CapabilitySet::from_bits_retain(capability.to_cap().bitmask())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_more_than_it_shall_have_only_until_its_filter_is_loaded() {
        let own: Capabilities = [Capability::Kill, Capability::Setpcap].into();
        let mut given = LinuxCapabilities::default();
        given
            .set_bounding(Some(own.clone()))
            .set_permitted(Some(own.clone()))
            .set_effective(Some(own.clone()))
            .set_inheritable(None);
        let surplus = Surplus::add_to(&mut given).expect("CAP_SYS_ADMIN was missing");
        assert_eq!(surplus.bounding, CapabilitySet::SYS_ADMIN);
        let wanted = CapabilitySet::KILL | CapabilitySet::SETPCAP;
        assert_eq!(surplus.afterwards.permitted, wanted);
        assert_eq!(surplus.afterwards.effective, wanted);
        let effective = given.effective().clone().expect("a set");
        assert!(effective.contains(&Capability::SysAdmin));
        assert!(Surplus::add_to(&mut given).is_none(), "nothing is missing");
    }
}
