//! The verbs of `orlop`, one file each.
