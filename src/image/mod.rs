//! The image store: import, unpacking, and the layers of a root file system.
