//! A disk that takes its time, or for ever: nobody else waits for it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::faulty::{
    LARGE, LITTLE_MEMORY, MIB, Scratch, check, get, get_all, hits_disk, log_lines, sized, targets, tier,
};
use crate::harness::{Ask, Edge, Origin, eventually};
use crate::over::all;

/// One worker, so that whoever blocks it blocks all.
async fn one_worker(scratch: &Scratch, origin: &Origin) -> Edge {
    let yaml = scratch.yaml(origin, LITTLE_MEMORY, "size: 256MiB", "") + "threads: 1\n";
    scratch.builder(&yaml).start().await
}

/// Sees that hits in memory take next to no time, nothing like what the disk does.
async fn memory_is_fast(edge: &Edge, target: &str) {
    let ask = Ask::get(target);
    let mut client = edge.connect().await;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let response = client.ask(&ask).await;
        times.push(began.elapsed());
        check(&response, target);
        assert_eq!(tier(&response), "memory");
    }
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median < Duration::from_millis(20) && longest < Duration::from_millis(250), "{median:?}, {longest:?}");
}

#[tokio::test]
async fn hits_in_memory_do_not_wait_for_reads() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = one_worker(&scratch, &origin).await;
    let large = targets(LARGE, "large", 50);
    get_all(&edge, &large, 10).await;
    get(&edge, "/1000/small").await;
    scratch.fault("read nowait\nread delay=300ms\n");
    let waiting = all(large.iter().map(async |target| {
        get(&edge, target).await;
        Instant::now()
    }));
    let measured = async {
        memory_is_fast(&edge, "/1000/small").await;
        Instant::now()
    };
    let (answered, measured) = tokio::join!(waiting, measured);
    let waited = answered.iter().filter(|at| **at > measured).count();
    assert!(waited > 25, "{waited} clients waited all the time");
}

#[tokio::test]
async fn hits_in_memory_do_not_wait_for_writes() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = one_worker(&scratch, &origin).await;
    get(&edge, "/1000/small").await;
    scratch.fault("write delay=300ms\n");
    let (large, spilled) = (targets(LARGE, "large", 40), targets(MIB, "spilled", 10));
    let storing = async {
        tokio::join!(get_all(&edge, &large, 40), get_all(&edge, &spilled, 10));
    };
    tokio::join!(storing, memory_is_fast(&edge, "/1000/small"));
    memory_is_fast(&edge, "/1000/small").await;
    // What has been written in its own time is there.
    scratch.heal();
    for target in large.iter().chain(&spilled).step_by(7) {
        hits_disk(&edge, target).await;
    }
}

#[tokio::test]
async fn a_disk_that_hangs_is_a_miss() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = one_worker(&scratch, &origin).await;
    let large = targets(LARGE, "large", 20);
    get_all(&edge, &large, 10).await;
    get(&edge, "/1000/small").await;
    scratch.fault("read hang\n");
    let began = Instant::now();
    let waiting = get_all(&edge, &large, large.len());
    let (answers, ()) = tokio::join!(waiting, memory_is_fast(&edge, "/1000/small"));
    assert!(answers.iter().all(|answer| tier(answer).is_empty()));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Once is enough.
    let began = Instant::now();
    get_all(&edge, &large, 10).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let line = "reading from the disk is suspended: it does not answer in time";
    assert_eq!((log_lines(&edge, line), log_lines(&edge, "is suspended")), (1, 1), "{}", edge.log());
    scratch.heal();
    for target in &large {
        hits_disk(&edge, target).await;
    }
}

#[tokio::test]
async fn a_disk_that_hangs_once_is_waited_for_once() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = one_worker(&scratch, &origin).await;
    let target = format!("/{LARGE}/large");
    get(&edge, &target).await;
    scratch.fault("open hang\n");
    let began = Instant::now();
    assert_eq!(tier(&get(&edge, &target).await), "");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    scratch.heal();
    hits_disk(&edge, &target).await;
}

#[tokio::test]
async fn a_disk_that_hangs_in_writing_holds_up_no_answer() {
    let scratch = Scratch::new();
    let origin = sized().await;
    let edge = one_worker(&scratch, &origin).await;
    get(&edge, "/1000/small").await;
    scratch.fault("write hang\n");
    let began = Instant::now();
    get_all(&edge, &targets(LARGE, "large", 40), 8).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // It is waited for as long as it may be just slow; then, no more.
    let began = Instant::now();
    get_all(&edge, &targets(4 * MIB, "first", 2), 2).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let began = Instant::now();
    get_all(&edge, &targets(4 * MIB, "next", 4), 1).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    memory_is_fast(&edge, "/1000/small").await;
    scratch.heal();
    eventually("it to be stored again", async || {
        let target = format!("/{LARGE}/large3");
        tier(&get(&edge, &target).await) == "disk"
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_process_from_ending() {
    for fault in ["write hang\n", "any hang\n"] {
        let scratch = Scratch::new();
        let origin = sized().await;
        let edge = one_worker(&scratch, &origin).await;
        get_all(&edge, &targets(LARGE, "before", 4), 4).await;
        scratch.fault(fault);
        get_all(&edge, &targets(LARGE, "large", 8), 8).await;
        let began = Instant::now();
        edge.signal(Signal::TERM);
        assert_eq!(edge.wait_exit().await.code(), Some(0), "{fault}");
        assert!(began.elapsed() < Duration::from_secs(8), "{fault}: {:?}", began.elapsed());
    }
}
