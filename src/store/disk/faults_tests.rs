use std::fs;
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::io::tests::Scratch;
use super::super::io::{Io, NowaitRead};
use super::super::residency::Residency;

const NAME: &str = "ab/name";

fn store(io: &Io, text: &str) -> io::Result<()> {
    let temp = io.create(Path::new("ab"))?;
    io.pwrite_all(temp.file(), 0, text.as_bytes())?;
    io.sync_data(temp.file())?;
    io.publish(temp, Path::new(NAME)).map(drop)
}

fn load(io: &Io) -> io::Result<Vec<u8>> {
    let file = io.open(Path::new(NAME))?;
    let mut buffer = vec![0; io.stat(&file)?.size as usize];
    io.pread(&file, 0, &mut buffer)?;
    Ok(buffer)
}

#[test]
fn each_operation_fails_with_the_error_that_is_asked_for_and_heals_with_the_line() {
    let scratch = Scratch::new();
    let io = scratch.io();
    store(&io, "text").unwrap();
    let errors = [
        ("ENOSPC", libc::ENOSPC),
        ("EDQUOT", libc::EDQUOT),
        ("EIO", libc::EIO),
        ("EROFS", libc::EROFS),
        ("EACCES", libc::EACCES),
        ("EPERM", libc::EPERM),
        ("ENOENT", libc::ENOENT),
        ("EMFILE", libc::EMFILE),
    ];
    for (word, number) in errors {
        scratch.faults(&format!("# a comment\n\n  any   {word}\n"));
        assert_eq!(store(&io, "next").unwrap_err().raw_os_error(), Some(number), "{word}");
    }
    type Operation = fn(&Io) -> io::Result<()>;
    let operations: [(&str, Operation); 12] = [
        ("open", |io| load(io).map(drop)),
        ("create", |io| store(io, "next")),
        ("read", |io| load(io).map(drop)),
        ("write", |io| store(io, "next")),
        ("sync", |io| store(io, "next")),
        ("publish", |io| store(io, "next")),
        ("rename", |io| io.rename(Path::new(NAME), Path::new("ab/other"))),
        ("unlink", |io| io.unlink(Path::new(NAME))),
        ("stat", |io| io.stat_name(Path::new(NAME)).map(drop)),
        ("readdir", |io| io.read_dir(Path::new(".")).map(drop)),
        ("mkdir", |io| io.mkdir(Path::new("cd"))),
        ("statfs", |io| io.free_space().map(drop)),
    ];
    for (word, operation) in operations {
        scratch.faults(&format!("{word} EIO"));
        assert_eq!(operation(&io).unwrap_err().raw_os_error(), Some(libc::EIO), "{word}");
        scratch.faults("");
        assert_eq!(load(&io).unwrap(), b"text", "{word} changed nothing");
    }
    for (word, operation) in operations {
        // The others go on: what is asked for first is not what fails.
        let other = if word == "mkdir" { "statfs" } else { "mkdir" };
        scratch.faults(&format!("{other} EIO"));
        operation(&io).unwrap();
        scratch.faults("");
        store(&io, "text").unwrap();
    }
}

#[test]
fn a_path_restricts_a_line_to_the_disks_below_it() {
    let scratch = Scratch::new();
    let io = scratch.io();
    let disk = scratch.path("disk");
    for (below, fails) in
        [(disk.clone(), true), (scratch.path(""), true), (scratch.path("dis"), false), (disk.join("ab"), false)]
    {
        scratch.faults(&format!("write ENOSPC {}\n", below.display()));
        assert_eq!(store(&io, "text").is_err(), fails, "{}", below.display());
    }
}

#[test]
fn a_line_that_says_nothing_fails_everything() {
    let scratch = Scratch::new();
    let io = scratch.io();
    for line in
        ["write", "write ENOSUCH", "wrote EIO", "write corrupt", "stat nowait", "read delay=2", "read delay=xms"]
    {
        scratch.faults(line);
        assert_eq!(io.free_space().unwrap_err().kind(), io::ErrorKind::InvalidInput, "{line}");
    }
}

#[test]
fn a_read_that_is_corrupt_has_one_wrong_bit() {
    let scratch = Scratch::new();
    let io = scratch.io();
    store(&io, "text").unwrap();
    scratch.faults("read corrupt");
    let differ = |read: &[u8]| b"text".iter().zip(read).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    assert_eq!(differ(&load(&io).unwrap()), 1);
    let mut buffer = *b"text";
    if io.try_read(io.open(Path::new(NAME)).unwrap(), 0, &mut buffer).unwrap() == NowaitRead::Full {
        assert_eq!(differ(&buffer), 1);
    }
    assert_eq!(fs::read(scratch.path("disk/ab/name")).unwrap(), b"text");
}

#[test]
fn nothing_is_in_the_page_cache_where_a_line_says_so_or_reads_would_fail() {
    let scratch = Scratch::new();
    let io = scratch.io();
    store(&io, "text").unwrap();
    let file = io.open(Path::new(NAME)).unwrap();
    let mut buffer = [0; 4];
    for line in ["read nowait", "any nowait", "read EIO", "read delay=60000ms", "read hang"] {
        scratch.faults(line);
        assert_eq!(io.try_read(&file, 0, &mut buffer).unwrap(), NowaitRead::WouldBlock, "{line}");
        assert_eq!(io.resident(&file, 0..4), Residency::No, "{line}");
    }
    scratch.faults("read nowait");
    assert_eq!(load(&io).unwrap(), b"text");
    scratch.faults("");
    assert_ne!(io.resident(&file, 0..4), Residency::No);
}

#[test]
fn a_delay_takes_its_time() {
    let scratch = Scratch::new();
    let io = scratch.io();
    scratch.faults("statfs delay=30ms");
    let start = Instant::now();
    io.free_space().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn what_hangs_goes_on_once_the_line_is_gone() {
    let scratch = Scratch::new();
    let io = scratch.io();
    scratch.faults("write hang");
    let (sender, receiver) = mpsc::channel();
    let (thread_io, begun) = (io.clone(), Instant::now());
    let thread = thread::spawn(move || sender.send(store(&thread_io, "text").map_err(|error| error.to_string())));
    assert_eq!(receiver.recv_timeout(Duration::from_millis(50)), Err(mpsc::RecvTimeoutError::Timeout));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    io.free_space().unwrap();
    scratch.faults("");
    assert_eq!(receiver.recv_timeout(Duration::from_secs(30)), Ok(Ok(())));
    thread.join().unwrap().unwrap();
    assert_eq!(load(&io).unwrap(), b"text");
}

#[test]
fn a_disk_that_cannot_be_opened_says_why_and_the_next_attempt_counts() {
    let scratch = Scratch::new();
    let io = scratch.io();
    fs::remove_dir_all(scratch.path("disk")).unwrap();
    for (line, number) in [("open EACCES", libc::EACCES), ("mkdir EROFS", libc::EROFS)] {
        scratch.faults(line);
        assert_eq!(io.reopen().unwrap_err().raw_os_error(), Some(number));
    }
    scratch.faults("");
    assert!(io.reopen().unwrap());
    store(&io, "text").unwrap();
}
