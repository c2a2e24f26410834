//! Responses that leave no faster than they may (`bandwidth`).
//!
//! Each response has a pace of its own. It is kept where bytes leave: in the connection for HTTP/1, in the stream for HTTP/2.
//! So it holds for whatever is sent, from memory, from a file, from the origin as it comes; and who waits is the writer to
//! this client alone: a fill that others follow goes on, as it does beside any client that is slow.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context as Waker, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Connection;
use super::context::Context;
use super::link;
use crate::guard::rate::Pace;

/// Beyond this, a wait is cut: the clock has an end.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Gives a response its pace, if it has one. Over HTTP/2, it goes in the head's extensions.
pub fn begin(session: &Session, head: &mut ResponseHeader, ctx: &Context) {
    // A tunnel has no response whose end could be waited for.
    let Some(pace) = ctx.pace.filter(|_| head.status != StatusCode::SWITCHING_PROTOCOLS) else { return };
    match link::connection(session) {
        Some(connection) => connection.pace(pace),
        None => {
            head.extensions_mut().insert(pace);
        }
    }
}

/// The same for a response that is put into the connection past Pingora's session.
pub fn begin_on(connection: &Connection, ctx: &Context) {
    if let Some(pace) = ctx.pace {
        connection.pace(pace);
    }
}

/// Says when bytes of one response may leave.
pub struct Pacer {
    pace: Pace,
    began: Instant,
    /// Nothing leaves before.
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pacer {
    pub fn new(pace: Pace) -> Box<Pacer> {
        Box::new(Pacer { pace, began: Instant::now(), until: None, timer: None })
    }

    /// How many bytes may leave: at least one. The task is woken when that is so.
    pub fn poll_room(&mut self, cx: &mut Waker<'_>) -> Poll<usize> {
        loop {
            if let Some(until) = self.until {
                let timer = match &mut self.timer {
                    Some(timer) => {
                        if timer.deadline() != until {
                            timer.as_mut().reset(until);
                        }
                        timer
                    }
                    None => self.timer.insert(Box::pin(sleep_until(until))),
                };
                ready!(timer.as_mut().poll(cx));
                self.until = None;
            }
            match self.pace.allow(self.began.elapsed()) {
                0 => self.sent(0),
                room => return Poll::Ready(usize::try_from(room).unwrap_or(usize::MAX)),
            }
        }
    }

    /// So many bytes have left.
    pub fn sent(&mut self, bytes: usize) {
        let now = Instant::now();
        let wait = self.pace.sent(bytes as u64, now - self.began);
        self.until = wait.map(|wait| now + wait.min(MAX_WAIT));
    }
}

/// The room of a response that may have no pace.
pub fn poll_room(pacer: &mut Option<Box<Pacer>>, cx: &mut Waker<'_>) -> Poll<usize> {
    match pacer {
        None => Poll::Ready(usize::MAX),
        Some(pacer) => pacer.poll_room(cx),
    }
}

/// Notes what has left of a response that may have no pace.
pub fn sent(pacer: &mut Option<Box<Pacer>>, bytes: usize) {
    if let Some(pacer) = pacer {
        pacer.sent(bytes);
    }
}

/// As much of `bytes` as there is room for, which it takes.
pub fn part<'a>(bytes: &'a [u8], room: &mut usize) -> IoSlice<'a> {
    let (part, _) = bytes.split_at_checked(*room).unwrap_or((bytes, &[]));
    *room -= part.len();
    IoSlice::new(part)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::watch::Watch;
    use super::*;
    use crate::config::model::{Http2Limits, Limits};

    const MIB: usize = 1024 * 1024;

    /// A connection, its client, and the watch that it is under.
    async fn connection() -> (Connection, TcpStream, Arc<Watch>) {
        let second = Duration::from_secs(1);
        let watch = Watch::new(Limits {
            header_count: 100,
            header_size: 1024,
            uri_length: 1024,
            body_size: None,
            idle_timeout: second,
            header_timeout: second,
            body_timeout: second,
            write_timeout: second,
            connections: 10,
            connections_per_address: None,
            body_min_rate: None,
            send_min_rate: None,
            http2: Http2Limits { streams: 128, resets: 1000, control_frames: 1000 },
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        (Connection::plain(socket, peer, false, watch.add()), client, watch)
    }

    /// Takes `bytes` bytes while `send` sends them; how long that took, by a clock that goes only while all wait for it.
    async fn take(mut client: TcpStream, bytes: usize, send: impl Future<Output = ()>) -> u128 {
        let began = Instant::now();
        let mut taken = vec![0; bytes];
        let (read, ()) = tokio::join!(client.read_exact(&mut taken), send);
        assert_eq!(read.unwrap(), bytes);
        assert!(taken.iter().enumerate().all(|(at, byte)| *byte == at as u8), "bytes are lost or changed");
        began.elapsed().as_millis()
    }

    fn body(bytes: usize) -> Bytes {
        (0..bytes).map(|at| at as u8).collect()
    }

    fn pace() -> Pace {
        Pace::new(MIB as u64, MIB as u64 / 2)
    }

    /// Half a MiB is free, and a tenth may leave at once.
    const TAKES: std::ops::RangeInclusive<u128> = 1_380..=1_700;

    #[tokio::test(start_paused = true)]
    async fn a_ready_reply_leaves_at_its_pace() {
        let (mut connection, client, _watch) = connection().await;
        connection.pace(pace());
        let whole = body(2 * MIB);
        connection.reply(|head| head.extend_from_slice(&whole[..100]), whole.slice(100..));
        let took = take(client, whole.len(), async { connection.flush().await.unwrap() }).await;
        assert!(TAKES.contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_what_is_written_piece_by_piece() {
        let (mut connection, client, _watch) = connection().await;
        connection.pace(pace());
        let whole = body(2 * MIB);
        let took = take(client, whole.len(), async {
            for piece in whole.chunks(10_000) {
                connection.write_all(piece).await.unwrap();
            }
            connection.flush().await.unwrap();
        });
        let took = took.await;
        assert!(TAKES.contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_what_is_sent_past_the_session() {
        let (connection, client, _watch) = connection().await;
        connection.pace(pace());
        let whole = body(2 * MIB);
        connection.reply(|head| head.extend_from_slice(&whole[..100]), whole.slice(100..));
        let took = take(client, whole.len(), async { connection.send_out().await.unwrap() }).await;
        assert!(TAKES.contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_a_file() {
        let (connection, client, _watch) = connection().await;
        connection.pace(pace());
        let whole = body(2 * MIB);
        let path = std::env::temp_dir().join(format!("foreland-pace-{}", std::process::id()));
        std::fs::write(&path, &whole).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let sending = async { connection.send_file(&file, 0..whole.len() as u64).await.unwrap() };
        let took = take(client, whole.len(), sending).await;
        assert!(TAKES.contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_response_has_a_pace_of_its_own_or_none() {
        let (mut connection, client, _watch) = connection().await;
        connection.pace(Pace::new(1024, 0));
        connection.request_ended();
        let whole = body(2 * MIB);
        connection.reply(|head| head.extend_from_slice(&whole[..100]), whole.slice(100..));
        let took = take(client, whole.len(), async { connection.flush().await.unwrap() }).await;
        assert_eq!(took, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_there_is_room() {
        let began = Instant::now();
        let mut pacer = Pacer::new(Pace::new(1_000_000, 0));
        let mut sent = 0;
        while sent < 1_000_000 {
            let room = poll_fn(|cx| pacer.poll_room(cx)).await;
            assert!(room >= 25_000 || sent == 0, "woken for {room} bytes");
            sent += room;
            pacer.sent(room);
        }
        assert!((850..=1_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert_eq!(poll_fn(|cx| poll_room(&mut None, cx)).await, usize::MAX);
    }
}
