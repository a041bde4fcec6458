//! Capabilities of the calling process (capabilities(7)).

use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

/// `CAP_SYS_RESOURCE`: lower OOM scores, higher limits.
pub const SYS_RESOURCE: CapabilitySet = CapabilitySet::SYS_RESOURCE;

/// True when the calling process could have this capability.
#[must_use]
pub fn has_bounding(capability: CapabilitySet) -> bool {
    capability_is_in_bounding_set(capability).unwrap_or(false)
}
