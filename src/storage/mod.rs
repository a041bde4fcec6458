//! The objects that users declared, and where they are kept.
