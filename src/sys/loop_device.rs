//! Loop devices: block devices whose content is a file (loop(4)).
//!
//! Every device made here frees itself when its last user is gone
//! (`LO_FLAGS_AUTOCLEAR`), whoever is killed at whatever moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

const CONTROL: &str = "/dev/loop-control";
const LOOP_GET_STATUS64: u32 = 0x4c05;
const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// Bytes of a label, with the NUL behind it (`LO_NAME_SIZE`).
const LABEL: usize = 64;
/// How often a free device is asked for that somebody else then takes.
const TRIES: usize = 64;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; LABEL],
    crypt_name: [u8; LABEL],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

impl Info {
    fn new(label: [u8; LABEL], flags: u32) -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: label,
            crypt_name: [0; LABEL],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// A loop device, held open.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its path, `/dev/loopN`.
    pub path: PathBuf,
    /// Kept open: a device without users frees itself.
    _open: File,
}

/// Whether this machine has loop devices, or could load them.
#[must_use]
pub fn is_available() -> bool {
    Path::new(CONTROL).exists()
}

/// Makes a loop device of `file`, which must be open for reading and writing.
/// `label`, of 63 bytes at most, tells it from others (see [`find`]).
///
/// # Errors
/// `NotFound` when the machine has no loop devices; `EBUSY` when all are taken;
/// else what open(2) and the ioctls of loop(4) say.
pub fn attach(file: BorrowedFd, label: &str) -> io::Result<LoopDevice> {
    let label = fit(label)?;
    let control = File::options().read(true).write(true).open(CONTROL)?;
    for _ in 0..TRIES {
        // SAFETY: this request takes no argument.
        let number = unsafe { control_free(control.as_raw_fd()) }?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        let config = Config {
            fd: file.as_raw_fd().cast_unsigned(),
            block_size: 0,
            info: Info::new(label, LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO),
            reserved: [0; 8],
        };
        // SAFETY: `config` is the structure that the request reads, and lives
        // across the call.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) };
        if done != -1 {
            return Ok(LoopDevice {
                path,
                _open: device,
            });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(Errno::BUSY.into())
}

/// The loop device with this label. While what is returned is held, the device
/// keeps its file.
///
/// # Errors
/// What open(2) and the ioctls of loop(4) say.
pub fn find(label: &str) -> io::Result<Option<LoopDevice>> {
    let label = fit(label)?;
    let entries = match std::fs::read_dir("/sys/block") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_loop = name.to_string_lossy().starts_with("loop");
        // The directory is there for devices that have a file.
        if !is_loop || !entry.path().join("loop").exists() {
            continue;
        }
        let path = Path::new("/dev").join(name);
        let device = match File::options().read(true).write(true).open(&path) {
            // It is read-only, or has been freed: none of ours that is in use.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EACCES | libc::EROFS | libc::ENXIO | libc::ENOENT)
                ) =>
            {
                continue;
            }
            device => device?,
        };
        if status(&device)?.is_some_and(|info| info.file_name == label) {
            return Ok(Some(LoopDevice {
                path,
                _open: device,
            }));
        }
    }
    Ok(None)
}

fn status(device: &File) -> io::Result<Option<Info>> {
    let mut info = Info::new([0; LABEL], 0);
    // SAFETY: `info` is the structure that the request fills in.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &mut info) };
    if done != -1 {
        return Ok(Some(info));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        error => Err(error),
    }
}

/// # Safety
/// `control` must be an open descriptor.
unsafe fn control_free(control: RawFd) -> io::Result<i32> {
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(control, LOOP_CTL_GET_FREE as _) } {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

fn fit(label: &str) -> io::Result<[u8; LABEL]> {
    let mut fitted = [0; LABEL];
    match fitted.get_mut(..label.len()) {
        Some(place) if label.len() < LABEL => place.copy_from_slice(label.as_bytes()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(fitted)
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);
