//! The kinds of volumes, one file each, and safe deletion.
