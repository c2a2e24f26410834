//! A secret as a file that is nowhere but in memory, so that it can be handed over beside the sockets.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

/// A secret is no longer than this.
const LONGEST: u64 = 1024;

/// A file with the secret.
///
/// # Errors
/// The kernel gives none.
pub fn sealed(secret: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("foreland-secret", MemfdFlags::CLOEXEC)?);
    file.write_all(secret)?;
    Ok(file.into())
}

/// The secret in a file that another process has handed over; `None`: it cannot be read, or is empty.
pub fn read(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut file = File::from(file.try_clone().ok()?);
    file.rewind().ok()?;
    let mut secret = Vec::new();
    file.take(LONGEST).read_to_end(&mut secret).ok()?;
    (!secret.is_empty()).then_some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_often_as_wanted() {
        let file = sealed(b"secret").unwrap();
        assert_eq!(read(&file).unwrap(), b"secret");
        assert_eq!(read(&file).unwrap(), b"secret");
        assert_eq!(read(&sealed(b"").unwrap()), None);
    }
}
