//! A list of servers in a file that is watched for changes.
//!
//! The path is looked at, never held open: editors replace a file by renaming another one over it, and a Kubernetes
//! volume changes where a symbolic link leads to.

use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::config::model::Server;
use crate::config::servers_list;

/// How often the path is looked at.
pub(in crate::origin) const POLL: Duration = Duration::from_secs(1);
/// How long a changed file must stay as it is before it counts: whoever writes it in place may not be done.
pub(in crate::origin) const SETTLE: Duration = Duration::from_millis(100);
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// What one look at the file has shown.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::origin) enum Look {
    /// Nothing new.
    Same,
    /// It has changed just now: to be looked at again after [`SETTLE`].
    Moving,
    /// New content: its servers, or everything that is wrong with it.
    New(Result<Vec<Server>, Vec<String>>),
}

/// A file, and what was seen of it.
#[derive(Debug)]
pub(in crate::origin) struct ServersFile {
    path: PathBuf,
    /// Of the last look; `None`: the path leads to nothing that can be looked at.
    stamp: Option<Stamp>,
    /// Whether the content has been read a second time since the stamp was new. Clocks of file systems are coarse: a
    /// change right after a reading may not show in the stamp.
    settled: bool,
    /// The newest content that counted; `None`: none did so far.
    content: Option<Content>,
}

/// The text, or why there is none.
type Content = Result<String, String>;

/// What changes with a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also by a change that sets the time of modification back.
    changed: (i64, i64),
}

impl ServersFile {
    pub(in crate::origin) fn new(path: PathBuf) -> ServersFile {
        ServersFile { path, stamp: None, settled: false, content: None }
    }

    /// Looks at the file, and reads it where that may lead to something new. Blocks.
    pub(in crate::origin) fn look(&mut self) -> Look {
        let metadata = std::fs::metadata(&self.path);
        let stamp = metadata.as_ref().ok().map(Stamp::of);
        if self.content.is_some() {
            if stamp != self.stamp {
                (self.stamp, self.settled) = (stamp, false);
                return Look::Moving;
            }
            if self.settled {
                return Look::Same;
            }
        }
        let content = match metadata {
            Ok(metadata) => read(&self.path, &metadata),
            Err(why) => Err(format!("cannot be read: {why}")),
        };
        let first = self.content.is_none();
        let known = self.content.as_ref() == Some(&content);
        // Changed while it was read: once more. But the first reading counts at once, since a start waits for it.
        let now = std::fs::metadata(&self.path).as_ref().ok().map(Stamp::of);
        if now != stamp && !first {
            self.stamp = now;
            return Look::Moving;
        }
        (self.stamp, self.settled) = (stamp, known);
        if known {
            return Look::Same;
        }
        let outcome = match &content {
            Ok(text) => servers(text, &self.path),
            Err(why) => Err(vec![why.clone()]),
        };
        self.content = Some(content);
        Look::New(outcome)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn read(path: &Path, metadata: &Metadata) -> Content {
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    // Should it be a pipe by now, opening it does not wait for whoever writes.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|why| format!("cannot be opened: {why}"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|why| format!("cannot be read: {why}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|why| format!("is not UTF-8 from byte {} on", why.utf8_error().valid_up_to()))
}

fn servers(text: &str, path: &Path) -> Result<Vec<Server>, Vec<String>> {
    // Whoever writes a file in place empties it first: that must not look like the wish for no servers.
    if text.trim().is_empty() {
        return Err(vec!["is empty; a list without servers is `[]`".to_owned()]);
    }
    servers_list(text, path.parent().unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A folder of its own, removed as it is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("foreland-servers-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn texts(look: Look) -> Vec<String> {
        match look {
            Look::New(Ok(servers)) => servers.iter().map(|server| server.address.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Looks until the file has settled, as the pool does.
    fn next(file: &mut ServersFile) -> Look {
        for _ in 0..10 {
            match file.look() {
                Look::Moving => {}
                look => return look,
            }
        }
        panic!("it never settles");
    }

    fn mistake(look: Look) -> String {
        match look {
            Look::New(Err(mistakes)) => mistakes.join("; "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_change_in_place_is_seen() {
        let folder = Folder::new();
        let mut file = ServersFile::new(folder.write("list", "- 10.0.0.1:80\n"));
        assert_eq!(texts(file.look()), ["10.0.0.1:80"]);
        assert_eq!([file.look(), file.look()], [Look::Same, Look::Same]);
        folder.write("list", "- 10.0.0.1:80\n- 10.0.0.2:80\n");
        assert_eq!(file.look(), Look::Moving);
        assert_eq!(texts(file.look()), ["10.0.0.1:80", "10.0.0.2:80"]);
        // Touched, but the same.
        folder.write("list", "- 10.0.0.1:80\n- 10.0.0.2:80\n");
        assert_eq!(next(&mut file), Look::Same);
    }

    #[test]
    fn a_change_that_the_clock_is_too_coarse_for_is_seen() {
        let folder = Folder::new();
        let path = folder.write("list", "- 10.0.0.1:80\n");
        let mut file = ServersFile::new(path.clone());
        file.look();
        folder.write("list", "- 10.0.0.2:80\n");
        // As if nothing had moved.
        file.stamp = Some(Stamp::of(&fs::metadata(&path).unwrap()));
        assert_eq!(texts(file.look()), ["10.0.0.2:80"]);
        assert_eq!(file.look(), Look::Same);
        assert!(file.settled);
    }

    #[test]
    fn a_file_that_is_replaced_is_seen() {
        let folder = Folder::new();
        let path = folder.write("list", "- 10.0.0.1:80\n");
        let mut file = ServersFile::new(path.clone());
        assert_eq!(texts(file.look()), ["10.0.0.1:80"]);
        fs::rename(folder.write("new", "- 10.0.0.2:80\n"), &path).unwrap();
        assert_eq!(texts(next(&mut file)), ["10.0.0.2:80"]);
    }

    #[test]
    fn a_symbolic_link_that_leads_elsewhere_is_seen() {
        let folder = Folder::new();
        for (version, text) in [("v1", "- 10.0.0.1:80\n"), ("v2", "[\"10.0.0.2:80\"]\n")] {
            fs::create_dir(folder.0.join(version)).unwrap();
            folder.write(&format!("{version}/list"), text);
        }
        let (data, list) = (folder.0.join("data"), folder.0.join("list"));
        symlink("v1", &data).unwrap();
        symlink("data/list", &list).unwrap();
        let mut file = ServersFile::new(list);
        assert_eq!(texts(file.look()), ["10.0.0.1:80"]);
        symlink("v2", folder.0.join("next")).unwrap();
        fs::rename(folder.0.join("next"), &data).unwrap();
        assert_eq!(texts(next(&mut file)), ["10.0.0.2:80"]);
    }

    #[test]
    fn what_cannot_be_read_is_said_once() {
        let folder = Folder::new();
        let path = folder.0.join("list");
        let mut file = ServersFile::new(path.clone());
        assert!(mistake(file.look()).contains("cannot be read"));
        assert_eq!(next(&mut file), Look::Same);
        folder.write("list", "- 10.0.0.1:80\n");
        assert_eq!(texts(next(&mut file)), ["10.0.0.1:80"]);
        fs::remove_file(&path).unwrap();
        assert!(mistake(next(&mut file)).contains("cannot be read"));
        fs::create_dir(&path).unwrap();
        assert!(mistake(next(&mut file)).contains("not a regular file"));
        assert_eq!(next(&mut file), Look::Same);
    }

    #[test]
    fn bad_content_is_a_list_of_mistakes() {
        let folder = Folder::new();
        let mut file = ServersFile::new(folder.write("list", "- 10.0.0.1\n- 10.0.0.1:80\n- nonsense:x\n"));
        assert!(matches!(file.look(), Look::New(Err(mistakes)) if mistakes.len() == 2));
        assert_eq!(next(&mut file), Look::Same);
        for (text, why) in [("", "is empty"), ("\n\n", "is empty"), ("a: b\n", ""), ("[", "")] {
            folder.write("list", text);
            let mistake = mistake(next(&mut file));
            assert!(!mistake.is_empty() && mistake.contains(why), "{text:?}: {mistake}");
        }
        fs::write(folder.0.join("list"), b"- 10.0.0.1:80 # \xff\n").unwrap();
        assert!(mistake(next(&mut file)).contains("not UTF-8 from byte 16"));
        folder.write("list", &format!("# {}\n[]", "x".repeat(LARGEST as usize)));
        assert!(mistake(next(&mut file)).contains("larger than 1 MiB"));
        folder.write("list", "[]");
        assert_eq!(texts(next(&mut file)), [""; 0]);
    }
}
