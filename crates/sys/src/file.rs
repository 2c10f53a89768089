//! Files that settings name. Whatever lies there, nobody waits for it: to open a FIFO keeps a process
//! until somebody comes to its other end.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file to be read.
///
/// # Errors
/// If it cannot be opened, or is of another kind.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true), "it is not a regular file", FileType::is_file)
}

/// Opens a file to append to, and makes it, with this mode, if it is missing. A character device (as
/// /dev/null) will do as well.
///
/// # Errors
/// If it cannot be opened, or is of another kind.
pub fn open_log(path: &Path, mode: u32) -> io::Result<File> {
    let refusal = "it is neither a regular file nor a character device";
    let may_be = |it: &FileType| it.is_file() || it.is_char_device();
    let mut options = OpenOptions::new();
    let file = open(path, options.append(true).create(true).mode(mode), refusal, may_be)?;
    // For the opening alone: this becomes the stdout of programs that know nothing of it.
    rustix::io::ioctl_fionbio(&file, false)?;
    Ok(file)
}

fn open(
    path: &Path,
    options: &mut OpenOptions,
    refusal: &str,
    may_be: impl Fn(&FileType) -> bool,
) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, refusal);
    let file = match options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        // A socket, or a FIFO that nobody reads.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(refused()),
        other => other?,
    };
    if may_be(&file.metadata()?.file_type()) { Ok(file) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn nobody_waits_for_the_other_end_of_what_is_no_file() {
        let folder = std::env::temp_dir().join(format!("shiftwork-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (fifo, socket) = (folder.join("fifo"), folder.join("socket"));
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let kind = io::ErrorKind::InvalidInput;
        for path in [&fifo, &socket, &folder] {
            assert_eq!(open_regular(path).unwrap_err().kind(), kind, "{}", path.display());
        }
        assert_eq!(open_log(&fifo, 0o600).unwrap_err().kind(), kind);
        assert_eq!(open_log(&socket, 0o600).unwrap_err().kind(), kind);
        // Not even while somebody reads it.
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
        assert_eq!(open_log(&fifo, 0o600).unwrap_err().kind(), kind);
        let log = folder.join("log");
        for _ in 0..2 {
            open_log(&log, 0o600).unwrap().write_all(b"line\n").unwrap();
        }
        let mut text = String::new();
        open_regular(&log).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\nline\n");
        let null = Path::new("/dev/null");
        open_log(null, 0o600).unwrap();
        assert_eq!(open_regular(null).unwrap_err().kind(), kind);
        assert!(open_regular(&folder.join("missing")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
