use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// A folder that goes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("foreland-disk-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The I/O of a disk in a folder of it, whose faults are in the file `faults` beside it.
    pub fn io(&self) -> Io {
        let root = self.path("disk");
        let io = Io::with_faults(&root, "one", Faults::in_file(&self.path("faults"), &root));
        io.reopen().unwrap();
        io
    }

    /// At once, so that nobody reads half of it.
    pub fn faults(&self, lines: &str) {
        fs::write(self.path("faults.new"), lines).unwrap();
        fs::rename(self.path("faults.new"), self.path("faults")).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const NAME: &str = "ab/name";

fn write(io: &Io, text: &str) -> Temp {
    let temp = io.create(Path::new("ab")).unwrap();
    io.pwrite_all(temp.file(), 0, text.as_bytes()).unwrap();
    temp
}

fn read(io: &Io, file: impl AsFd) -> String {
    let mut buffer = [0; 64];
    let read = io.pread(file, 0, &mut buffer).unwrap();
    String::from_utf8(buffer[..read].to_vec()).unwrap()
}

/// On the way that the file system has, and on the one for those that only have files with names.
fn on_both_ways(test: impl Fn(&Scratch, Io)) {
    for named in [false, true] {
        let scratch = Scratch::new();
        let io = scratch.io();
        if named {
            io.root().unwrap().unnamed.store(false, Ordering::Relaxed);
        }
        test(&scratch, io);
    }
}

fn list(io: &Io, name: &str) -> BTreeSet<(String, &'static str)> {
    let mut dir = io.read_dir(Path::new(name)).unwrap();
    let mut names = BTreeSet::new();
    let mut each = |name: &[u8], kind| {
        let kind = match kind {
            FileKind::File => "file",
            FileKind::Folder => "folder",
            FileKind::Other => "other",
        };
        assert!(names.insert((String::from_utf8(name.to_vec()).unwrap(), kind)), "listed twice");
    };
    while dir.page(&mut each).unwrap() {}
    names
}

#[test]
fn what_is_published_is_found_and_replaces_what_was_there_at_once() {
    on_both_ways(|scratch, io| {
        let name = Path::new(NAME);
        let first = write(&io, "first");
        assert_eq!(io.open(name).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = io.publish(first, name).unwrap();
        assert_eq!(read(&io, &file), "first");
        let old = io.open(name).unwrap();
        io.publish(write(&io, "second"), name).unwrap();
        assert_eq!(read(&io, io.open(name).unwrap()), "second");
        assert_eq!(read(&io, &old), "first", "whoever has it open keeps it");
        let stat = io.stat(&old).unwrap();
        assert_eq!((stat.links, stat.size), (0, 5));
        let metadata = fs::metadata(scratch.path("disk/ab/name")).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.nlink()), (0o600, 1));
        if scratch.path("disk/tmp").exists() {
            assert!(list(&io, TEMP_DIR).is_empty());
        }
    });
}

#[test]
fn what_is_not_published_leaves_nothing() {
    on_both_ways(|scratch, io| {
        let temp = write(&io, "text");
        let kept = temp.file().clone();
        drop(temp);
        assert_eq!(io.stat(&kept).unwrap().links, 0);
        for dir in ["ab", "tmp"] {
            assert!(!scratch.path("disk").join(dir).exists() || list(&io, dir).is_empty());
        }
    });
}

#[test]
fn a_publication_that_fails_leaves_the_name_as_it_was_and_no_temporary_file() {
    on_both_ways(|scratch, io| {
        // Its folder is none.
        fs::write(scratch.path("disk/ab"), "file").unwrap();
        let temp = io.create(Path::new(".")).unwrap();
        assert!(io.publish(temp, Path::new(NAME)).is_err());
        assert_eq!(fs::read(scratch.path("disk/ab")).unwrap(), b"file");
        assert!(!scratch.path("disk/tmp").exists() || list(&io, TEMP_DIR).is_empty());
    });
}

#[test]
fn a_folder_in_the_place_of_a_file_is_put_out_of_the_way() {
    on_both_ways(|scratch, io| {
        for content in ["disk/ab/name", "disk/ab/name/full"] {
            fs::create_dir_all(scratch.path(content)).unwrap();
            io.publish(write(&io, content), Path::new(NAME)).unwrap();
            assert_eq!(read(&io, io.open(Path::new(NAME)).unwrap()), content);
            io.unlink(Path::new(NAME)).unwrap();
        }
        // The one that was not empty is kept whole.
        assert_eq!(list(&io, TEMP_DIR).len(), 1);
        fs::create_dir_all(scratch.path("disk/ab/name/full")).unwrap();
        io.unlink(Path::new(NAME)).unwrap();
        assert_eq!((io.stat_name(Path::new(NAME)).is_err(), list(&io, TEMP_DIR).len()), (true, 2));
    });
}

#[test]
fn folders_are_made_when_they_are_needed_and_again_when_they_have_gone() {
    on_both_ways(|scratch, io| {
        let temp = write(&io, "one");
        for dir in ["ab", "tmp"] {
            let _ = fs::remove_dir_all(scratch.path("disk").join(dir));
        }
        let published = io.publish(temp, Path::new(NAME));
        // One with a name has gone with its folder; one without has only its folder to make again.
        assert!(published.is_ok() || !io.root().unwrap().unnamed.load(Ordering::Relaxed));
        io.publish(write(&io, "two"), Path::new(NAME)).unwrap();
        assert_eq!(read(&io, io.open(Path::new(NAME)).unwrap()), "two");
    });
}

#[test]
fn temporary_names_that_are_taken_are_passed_over() {
    let scratch = Scratch::new();
    let io = scratch.io();
    io.root().unwrap().unnamed.store(false, Ordering::Relaxed);
    io.mkdir(Path::new(TEMP_DIR)).unwrap();
    for number in [0, 1] {
        fs::write(scratch.path(&format!("disk/tmp/one-{number}")), "another's").unwrap();
    }
    let temp = write(&io, "text");
    assert_eq!(temp.name.as_deref(), Some(Path::new("tmp/one-2")));
    assert_eq!(fs::read_to_string(scratch.path("disk/tmp/one-1")).unwrap(), "another's");
}

#[test]
fn before_it_is_opened_a_disk_holds_nothing_and_opening_creates_it_with_its_parents() {
    let scratch = Scratch::new();
    let io = Io::new(&scratch.path("a/b/disk"), "one");
    assert_eq!(io.open(Path::new(NAME)).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(io.create(Path::new("ab")).err().unwrap().raw_os_error(), Some(libc::ENOENT));
    assert!(io.displaced().unwrap());
    assert!(io.reopen().unwrap());
    assert!(!io.displaced().unwrap());
    assert!(!io.reopen().unwrap(), "it is the same folder");
    assert_eq!(fs::metadata(scratch.path("a/b/disk")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(io.publish(write(&io, "text"), Path::new(NAME)).map(|file| read(&io, file)).unwrap(), "text");
}

#[test]
fn a_folder_that_is_deleted_or_moved_is_used_again_once_it_is_reopened() {
    let scratch = Scratch::new();
    let io = scratch.io();
    io.publish(write(&io, "text"), Path::new(NAME)).unwrap();
    let (early, file) = (write(&io, "early"), io.open(Path::new(NAME)).unwrap());
    fs::remove_dir_all(scratch.path("disk")).unwrap();
    assert!(io.displaced().unwrap());
    assert_eq!(io.create(Path::new("ab")).err().unwrap().raw_os_error(), Some(libc::ENOENT));
    assert!(io.reopen().unwrap());
    assert_eq!(read(&io, file), "text");
    io.publish(early, Path::new(NAME)).unwrap();
    assert_eq!(fs::read_to_string(scratch.path("disk/ab/name")).unwrap(), "early");
    fs::rename(scratch.path("disk"), scratch.path("elsewhere")).unwrap();
    fs::create_dir(scratch.path("disk")).unwrap();
    assert!(io.displaced().unwrap() && io.reopen().unwrap() && !io.displaced().unwrap());
    assert!(io.open(Path::new(NAME)).is_err());
}

#[test]
fn the_folder_that_is_open_stays_in_use_while_its_path_leads_nowhere() {
    let scratch = Scratch::new();
    let io = scratch.io();
    fs::rename(scratch.path("disk"), scratch.path("elsewhere")).unwrap();
    fs::write(scratch.path("disk"), "no folder").unwrap();
    assert!(io.reopen().is_err());
    io.publish(write(&io, "text"), Path::new(NAME)).unwrap();
    assert_eq!(fs::read_to_string(scratch.path("elsewhere/ab/name")).unwrap(), "text");
}

#[test]
fn parts_are_written_one_after_the_other_and_read_up_to_the_end() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let temp = io.create(Path::new(".")).unwrap();
    let mut parts = ["", "head", "", "body", "table", ""].map(|part| IoSlice::new(part.as_bytes()));
    io.pwritev_all(temp.file(), 3, &mut parts).unwrap();
    assert_eq!(read(&io, temp.file()), "\0\0\0headbodytable");
    io.pwritev_all(temp.file(), 0, &mut []).unwrap();
    io.pwrite_all(temp.file(), 0, b"").unwrap();
    // More parts than one call takes.
    let text: Vec<u8> = (0..3000_u32).flat_map(|n| [n as u8, (n >> 8) as u8]).collect();
    let mut parts: Vec<IoSlice> = text.chunks(2).map(IoSlice::new).collect();
    io.pwritev_all(temp.file(), 0, &mut parts).unwrap();
    io.sync_data(temp.file()).unwrap();
    let mut buffer = vec![0; 9000];
    assert_eq!(io.pread(temp.file(), 0, &mut buffer).unwrap(), text.len());
    assert_eq!(buffer[..text.len()], text);
    assert_eq!(io.pread(temp.file(), 5990, &mut buffer).unwrap(), 10);
    assert_eq!(io.pread(temp.file(), 6000, &mut buffer).unwrap(), 0);
    let stat = io.stat(temp.file()).unwrap();
    assert_eq!((stat.size, stat.kind), (6000, FileKind::File));
    assert!(stat.allocated >= 4096 && stat.allocated.is_multiple_of(512));
}

#[test]
fn offsets_that_no_file_has_are_errors() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let temp = write(&io, "text");
    let mut buffer = [0; 4];
    for offset in [u64::MAX, 1 << 63] {
        assert!(io.pread(temp.file(), offset, &mut buffer).is_err());
        assert!(io.try_read(temp.file(), offset, &mut buffer).is_err());
        assert!(io.pwrite_all(temp.file(), offset, b"text").is_err());
    }
}

#[test]
fn what_is_in_the_page_cache_is_read_in_place() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let temp = write(&io, "0123456789");
    let mut buffer = [0; 4];
    let answer = io.try_read(temp.file(), 2, &mut buffer).unwrap();
    // Where the file system cannot say, nothing is ever in place.
    if io.root().unwrap().nowait.load(Ordering::Relaxed) || io.root().unwrap().in_memory {
        assert_eq!((answer, &buffer), (NowaitRead::Full, b"2345"));
        assert_eq!(io.try_read(temp.file(), 7, &mut buffer).unwrap(), NowaitRead::Partial(3));
        assert_eq!(&buffer[..3], b"789");
        assert_eq!(io.try_read(temp.file(), 10, &mut buffer).unwrap(), NowaitRead::Partial(0));
    } else {
        assert_eq!(answer, NowaitRead::WouldBlock);
    }
    assert_eq!(io.try_read(temp.file(), 0, &mut []).unwrap(), NowaitRead::Full);
}

#[test]
fn a_file_system_without_reads_in_place_is_not_asked_again() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let temp = write(&io, "text");
    io.root().unwrap().nowait.store(false, Ordering::Relaxed);
    let in_memory = io.root().unwrap().in_memory;
    let mut buffer = [0; 4];
    let expected = if in_memory { NowaitRead::Full } else { NowaitRead::WouldBlock };
    assert_eq!(io.try_read(temp.file(), 0, &mut buffer).unwrap(), expected);
}

#[test]
fn in_memory_there_is_no_disk_to_wait_for() {
    // Linux has it; a container may not.
    let Ok(root) = Root::open(Path::new("/dev/shm")) else { return };
    if !root.in_memory {
        return;
    }
    let path = PathBuf::from(format!("/dev/shm/foreland-disk-{}", std::process::id()));
    let io = Io::new(&path, "one");
    if io.reopen().is_err() {
        return;
    }
    let temp = write(&io, "text");
    let mut buffer = [0; 4];
    let with = io.try_read(temp.file(), 0, &mut buffer);
    io.root().unwrap().nowait.store(false, Ordering::Relaxed);
    let without = io.try_read(temp.file(), 0, &mut buffer);
    fs::remove_dir_all(&path).unwrap();
    assert_eq!((with.unwrap(), without.unwrap()), (NowaitRead::Full, NowaitRead::Full));
    assert_eq!(&buffer, b"text");
}

#[test]
fn files_are_renamed_and_removed_by_name() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let (from, to) = (Path::new(NAME), Path::new("ab/other"));
    io.publish(write(&io, "text"), from).unwrap();
    let before = io.stat_name(from).unwrap();
    io.rename(from, to).unwrap();
    let after = io.stat_name(to).unwrap();
    assert_eq!((after.inode, after.modified, after.size), (before.inode, before.modified, 4));
    assert!(after.changed >= before.changed && after.modified > 1_600_000_000_000_000_000);
    assert_eq!(io.stat_name(from).unwrap_err().kind(), io::ErrorKind::NotFound);
    io.pwrite_all(io.open_writable(to).unwrap(), 0, b"next").unwrap();
    assert_eq!(read(&io, io.open(to).unwrap()), "next");
    assert!(io.pwrite_all(io.open(to).unwrap(), 0, b"none").is_err(), "it was opened for reading");
    io.unlink(to).unwrap();
    assert_eq!(io.unlink(to).unwrap_err().kind(), io::ErrorKind::NotFound);
    io.mkdir(Path::new("ab")).unwrap();
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let scratch = Scratch::new();
    let io = scratch.io();
    fs::write(scratch.path("secret"), "secret").unwrap();
    symlink(scratch.path("secret"), scratch.path("disk/link")).unwrap();
    assert!(io.open(Path::new("link")).is_err());
    assert_eq!(io.stat_name(Path::new("link")).unwrap().kind, FileKind::Other);
}

#[test]
fn a_folder_is_listed_page_by_page_with_every_name_once() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let mut expected = BTreeSet::from([("folder".to_owned(), "folder"), ("link".to_owned(), "other")]);
    fs::create_dir(scratch.path("disk/folder")).unwrap();
    symlink("nowhere", scratch.path("disk/link")).unwrap();
    for number in 0..1500 {
        let name = format!("{number:032x}");
        fs::write(scratch.path("disk").join(&name), "").unwrap();
        expected.insert((name, "file"));
    }
    assert_eq!(list(&io, "."), expected);
    let mut first = 0;
    assert!(io.read_dir(Path::new(".")).unwrap().page(|_, _| first += 1).unwrap());
    assert!((1..1500).contains(&first), "{first} in one page");
    assert!(list(&io, "folder").is_empty());
    assert_eq!(io.read_dir(Path::new("none")).err().unwrap().kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_room_on_the_file_system_is_known() {
    let scratch = Scratch::new();
    let space = scratch.io().free_space().unwrap();
    assert!(space.free > 0 && space.free <= space.total && !space.read_only, "{space:?}");
}
