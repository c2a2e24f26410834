use std::sync::mpsc::{self, Receiver, Sender};
use std::task::{Context, Poll, Waker};
use std::{future::Future, pin::pin};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A job that says that it has begun, and ends when it is told to.
struct Held {
    begun: Receiver<()>,
    go: Sender<()>,
}

fn held() -> (Held, impl FnOnce() + Send + 'static) {
    let ((begin, begun), (go, may_go)) = (mpsc::channel(), mpsc::channel::<()>());
    let job = move || {
        let _ = begin.send(());
        let _ = may_go.recv();
    };
    (Held { begun, go }, job)
}

impl Held {
    fn begun(&self) {
        self.begun.recv_timeout(LONG).unwrap();
    }
}

fn soon() -> Instant {
    Instant::now() + LONG
}

#[tokio::test]
async fn a_job_is_done_on_a_thread_of_the_pool_and_its_result_comes_back() {
    let pool = Pool::new("disk", 2, 1, 8);
    let name = || thread::current().name().map(str::to_owned);
    assert_eq!(pool.read(LONG, name).await, Ok(Some("disk-r0".to_owned())));
    assert_eq!(pool.write(LONG, name).await, Ok(Some("disk-w0".to_owned())));
    assert!(pool.drain(soon()));
    assert_eq!((pool.reads(), pool.writes()), (Load::default(), Load::default()));
}

#[test]
fn one_thread_does_the_jobs_in_their_order() {
    let pool = Pool::new("disk", 1, 1, 100);
    let (sender, receiver) = mpsc::channel();
    for number in 0..100 {
        let sender = sender.clone();
        // The queue holds all of them even if none has begun.
        pool.try_write(move || sender.send(number).unwrap()).unwrap();
    }
    assert!(pool.drain(soon()));
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[test]
fn threads_start_when_they_are_needed_up_to_the_limit() {
    let pool = Pool::new("disk", 1, 3, 8);
    assert_eq!(pool.writes.started.load(Ordering::Relaxed), 0);
    for _ in 0..5 {
        pool.try_write(|| ()).unwrap();
        assert!(pool.drain(soon()));
    }
    assert_eq!(pool.writes.started.load(Ordering::Relaxed), 1, "one was enough");
    let (all, jobs): (Vec<_>, Vec<_>) = (0..3).map(|_| held()).unzip();
    jobs.into_iter().for_each(|job| pool.try_write(job).unwrap());
    all.iter().for_each(Held::begun);
    pool.try_write(|| ()).unwrap();
    assert_eq!(pool.writes(), Load { queued: 1, running: 3 });
    assert_eq!(pool.writes.started.load(Ordering::Relaxed), 3);
    assert_eq!(pool.reads.started.load(Ordering::Relaxed), 0);
    drop(all);
    assert!(pool.drain(soon()));
}

#[tokio::test]
async fn a_full_queue_is_an_answer_at_once_and_writes_hold_up_no_read() {
    let pool = Pool::new("disk", 1, 1, 2);
    let (first, job) = held();
    pool.try_write(job).unwrap();
    first.begun();
    pool.try_write(|| ()).unwrap();
    pool.try_write(|| ()).unwrap();
    assert_eq!(pool.try_write(|| ()), Err(PoolError::Full));
    assert_eq!(pool.write(LONG, || ()).await, Err(PoolError::Full));
    assert_eq!(pool.writes(), Load { queued: 2, running: 1 });
    assert_eq!(pool.read(LONG, || 7).await, Ok(7));
    assert!(!pool.drain(Instant::now()));
    drop(first);
    assert!(pool.drain(soon()), "what was refused is not counted");
    pool.try_write(|| ()).unwrap();
}

#[tokio::test]
async fn a_job_that_is_late_ends_on_its_thread_and_its_result_is_dropped() {
    let pool = Pool::new("disk", 1, 1, 2);
    let (late, job) = held();
    let (sender, dropped) = mpsc::channel::<()>();
    let result = pool.read(Duration::from_millis(5), move || {
        job();
        sender
    });
    assert_eq!(result.await.err(), Some(PoolError::TimedOut));
    late.begun();
    late.go.send(()).unwrap();
    assert_eq!(dropped.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
    assert_eq!(pool.read(LONG, || 7).await, Ok(7));
}

#[tokio::test]
async fn a_read_that_nobody_waits_for_is_not_begun_and_a_write_is() {
    let pool = Pool::new("disk", 1, 1, 4);
    let (sender, done) = mpsc::channel();
    let (first, job) = held();
    let (second, other) = held();
    pool.try_write(job).unwrap();
    pool.reads.submit(other).unwrap();
    first.begun();
    second.begun();
    for kind in ["read", "write"] {
        let sender = sender.clone();
        let job = move || sender.send(kind);
        let result = match kind {
            "read" => pool.read(Duration::from_millis(5), job).await,
            _ => pool.write(Duration::from_millis(5), job).await,
        };
        assert_eq!(result, Err(PoolError::TimedOut));
    }
    // A future that is dropped is the same as one that has waited long enough.
    let abandoned = sender.clone();
    {
        let mut read = pin!(pool.read(LONG, move || abandoned.send("dropped")));
        assert!(matches!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    }
    drop((first, second));
    assert!(pool.drain(soon()));
    assert_eq!(done.try_iter().collect::<Vec<_>>(), ["write"]);
}

#[tokio::test]
async fn a_job_that_panics_is_gone_and_its_thread_goes_on() {
    let pool = Pool::new("disk", 1, 1, 4);
    fn fail() {
        std::panic::resume_unwind(Box::new("as it should"))
    }
    assert_eq!(pool.read(LONG, fail).await, Err(PoolError::Gone));
    assert_eq!(pool.write(LONG, fail).await, Err(PoolError::Gone));
    pool.try_write(fail).unwrap();
    assert_eq!((pool.read(LONG, || 7).await, pool.write(LONG, || 8).await), (Ok(7), Ok(8)));
    assert!(pool.drain(soon()));
    assert_eq!((pool.reads(), pool.writes()), (Load::default(), Load::default()));
}

#[test]
fn a_pool_that_is_dropped_does_what_is_queued_and_its_threads_end() {
    let pool = Pool::new("disk", 1, 1, 4);
    let (first, job) = held();
    let (sender, done) = mpsc::channel();
    pool.try_write(job).unwrap();
    let queued = sender.clone();
    pool.try_write(move || queued.send(1).unwrap()).unwrap();
    first.begun();
    let receiver = pool.writes.receiver.clone();
    drop((pool, sender, first));
    assert_eq!(done.recv_timeout(LONG), Ok(1));
    assert_eq!(done.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
    // Nobody can send any more, so the thread's loop has come to its end.
    assert!(receiver.recv_timeout(LONG).is_err_and(|error| error.is_disconnected()));
}

#[test]
fn draining_waits_for_what_is_running() {
    let pool = Arc::new(Pool::new("disk", 1, 1, 4));
    let (first, job) = held();
    pool.try_write(job).unwrap();
    first.begun();
    assert!(!pool.drain(Instant::now() + Duration::from_millis(5)));
    let (sender, drained) = mpsc::channel();
    let waiting = pool.clone();
    let thread = thread::spawn(move || sender.send(waiting.drain(soon())));
    assert_eq!(drained.recv_timeout(Duration::from_millis(5)), Err(mpsc::RecvTimeoutError::Timeout));
    drop(first);
    assert_eq!(drained.recv_timeout(LONG), Ok(true));
    thread.join().unwrap().unwrap();
}

#[test]
fn an_error_of_the_pool_is_one_of_io_for_those_who_ask_for_that() {
    let kinds = [PoolError::Full, PoolError::TimedOut, PoolError::Gone].map(|error| io::Error::from(error).kind());
    assert_eq!(kinds, [io::ErrorKind::ResourceBusy, io::ErrorKind::TimedOut, io::ErrorKind::Other]);
}
