use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::model::{Origin, OriginHttp, ProxyProtocol};
use crate::origin::wire::kit::{Authority, ONLY_TLS_1_3, ServerTls, origin, serve, serve_tls};
use crate::origin::wire::message::{BodyLength, RequestHead};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server sees of its connections.
#[derive(Clone)]
struct Seen {
    accepted: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    /// Answers wait for one of these each.
    may_answer: Arc<Semaphore>,
    /// Requests that have come.
    asked: Arc<AtomicUsize>,
    /// HTTP/2: what the server allows.
    streams: u32,
    /// HTTP/1.1: what it sends.
    answer: &'static str,
    /// It says goodbye with each answer (HTTP/2), or closes without a word (HTTP/1.1).
    closes: bool,
    /// It closes its connections when it is told to.
    hangs_up: Arc<Notify>,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            accepted: Arc::default(),
            closed: Arc::default(),
            may_answer: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            asked: Arc::default(),
            streams: 1000,
            answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            closes: false,
            hangs_up: Arc::default(),
        }
    }

    /// Answers only what [`Semaphore::add_permits`] lets it.
    fn waiting() -> Seen {
        Seen { may_answer: Arc::new(Semaphore::new(0)), ..Seen::new() }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    async fn h1<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let mut head = Vec::new();
        let hangs_up = self.hangs_up.clone();
        loop {
            let byte = tokio::select! {
                byte = stream.read_u8() => byte,
                () = hangs_up.notified() => break,
            };
            let Ok(byte) = byte else { break };
            head.push(byte);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                self.asked.fetch_add(1, Ordering::SeqCst);
                self.may_answer.acquire().await.unwrap().forget();
                if stream.write_all(self.answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                if self.closes {
                    break;
                }
            }
        }
        drop(stream);
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    async fn h2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let mut server = h2::server::Builder::new();
        server.max_concurrent_streams(self.streams);
        if let Ok(mut connection) = server.handshake::<_, Bytes>(stream).await {
            let hangs_up = self.hangs_up.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = connection.accept() => accepted,
                    () = hangs_up.notified() => break,
                };
                let Some(Ok((_, mut respond))) = accepted else { break };
                self.asked.fetch_add(1, Ordering::SeqCst);
                let may_answer = self.may_answer.clone();
                tokio::spawn(async move {
                    may_answer.acquire().await.unwrap().forget();
                    if let Ok(mut body) = respond.send_response(Response::new(()), false) {
                        let _ = body.send_data(Bytes::from_static(b"ok"), true);
                    }
                });
                if self.closes {
                    connection.graceful_shutdown();
                }
            }
        }
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// The connections to one server.
struct Site {
    seen: Seen,
    connections: Arc<Connections>,
    dialer: Arc<Dialer>,
    endpoint: Endpoint,
}

impl Site {
    fn new(origin: &Origin, seen: &Seen, address: SocketAddr) -> Arc<Site> {
        let dialer = Arc::new(Dialer::new(origin));
        Arc::new(Site { seen: seen.clone(), connections: Arc::default(), dialer, endpoint: address.into() })
    }

    /// Of a server of HTTP/1.1, without TLS.
    async fn h1(origin: &Origin, seen: Seen) -> Arc<Site> {
        let server = seen.clone();
        let address = serve(move |tcp| server.clone().h1(tcp)).await;
        Site::new(origin, &seen, address)
    }

    /// Of a server of HTTP/2 with prior knowledge.
    async fn h2(origin: &Origin, seen: Seen) -> Arc<Site> {
        let server = seen.clone();
        let address = serve(move |tcp| server.clone().h2(tcp)).await;
        Site::new(&Origin { http: OriginHttp::Http2, ..origin.clone() }, &seen, address)
    }

    async fn checkout(&self) -> Result<(Wire, How), WireError> {
        let checkout = self.connections.checkout(&self.dialer, &self.endpoint, "origin.test:1", None);
        timeout(PATIENCE, checkout).await.unwrap()
    }

    async fn get(&self) -> How {
        let (mut wire, how) = self.checkout().await.unwrap();
        ask(&mut wire).await;
        wire.finish();
        how
    }

    /// So many requests at once.
    fn burst(self: &Arc<Self>, requests: usize) -> JoinSet<How> {
        (0..requests)
            .map(|_| {
                let site = self.clone();
                async move { site.get().await }
            })
            .collect()
    }

    fn counts(&self) -> (usize, usize, u64) {
        let ConnectionCounts { open, idle, opened_total } = self.connections.counts();
        (open, idle, opened_total)
    }
}

fn get() -> RequestHead {
    let wire = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n");
    RequestHead { method: Method::GET, wire, body: BodyLength::None }
}

/// A GET, answered with `ok`.
async fn ask(wire: &mut Wire) {
    let answer = async {
        wire.send_head(&get()).await?;
        let head = wire.read_head().await?;
        let mut body = Vec::new();
        while let Some(data) = poll_fn(|cx| wire.poll_read_body(cx)).await? {
            body.extend_from_slice(&data);
        }
        Ok::<_, WireError>((head.status, body))
    };
    let (status, body) = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!((status, body.as_slice()), (200, &b"ok"[..]));
}

/// Waits for what another task brings about.
async fn until(what: impl Fn() -> bool) {
    let seen = async {
        while !what() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, seen).await.expect("it has not come about");
}

fn opened(how: How) -> bool {
    matches!(how, How::Opened(_))
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let site = Site::h1(&origin(None), Seen::new()).await;
    assert!(opened(site.get().await));
    assert_eq!(site.counts(), (1, 1, 1));
    for _ in 0..10 {
        assert_eq!(site.get().await, How::Kept);
    }
    assert_eq!(site.counts(), (1, 1, 1));
    let (wire, _) = site.checkout().await.unwrap();
    assert_eq!(site.counts(), (1, 0, 1));

    // Nobody knows what is still to come on it.
    drop(wire);
    assert_eq!(site.counts(), (0, 0, 1));
    until(|| site.seen.closed() == 1).await;
}

#[tokio::test]
async fn as_many_are_kept_as_may_be_and_the_last_is_taken_first() {
    let settings = Origin { keepalive: 2, ..origin(None) };
    let site = Site::h1(&settings, Seen::new()).await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(site.checkout().await.unwrap().0);
    }
    for wire in &mut wires {
        ask(wire).await;
    }
    assert_eq!(site.counts(), (4, 0, 4));
    for wire in wires {
        wire.finish();
    }
    assert_eq!(site.counts(), (2, 2, 4));
    until(|| site.seen.closed() == 2).await;

    let settings = Origin { keepalive: 0, ..origin(None) };
    let site = Site::h1(&settings, Seen::new()).await;
    assert!(opened(site.get().await) && opened(site.get().await));
    assert_eq!(site.counts(), (0, 0, 2));
}

#[tokio::test]
async fn what_is_unused_for_too_long_is_closed() {
    let settings = Origin { idle_timeout: Duration::from_millis(50), ..origin(None) };
    for site in [Site::h1(&settings, Seen::new()).await, Site::h2(&settings, Seen::new()).await] {
        site.get().await;
        assert_eq!(site.counts(), (1, 1, 1));
        let unused_since = Instant::now();
        until(|| site.seen.closed() == 1).await;
        // The server may see it a moment later, never earlier. Reading the clock after the request has taken some time.
        assert!(unused_since.elapsed() >= Duration::from_millis(40));
        until(|| site.counts() == (0, 0, 1)).await;
        assert!(opened(site.get().await));
    }
}

#[tokio::test]
async fn what_the_server_closes_does_not_stay_open() {
    // Without another request: an idle edge has no use for dead sockets.
    let site = Site::h1(&origin(None), Seen { closes: true, ..Seen::new() }).await;
    site.get().await;
    until(|| site.counts() == (0, 0, 1)).await;
    assert!(opened(site.get().await));

    let site = Site::h2(&origin(None), Seen { closes: true, ..Seen::new() }).await;
    site.get().await;
    until(|| site.counts() == (0, 0, 1)).await;
    assert!(opened(site.get().await));

    // While it is unused.
    for site in [Site::h1(&origin(None), Seen::new()).await, Site::h2(&origin(None), Seen::new()).await] {
        site.get().await;
        assert_eq!(site.counts(), (1, 1, 1));
        site.seen.hangs_up.notify_waiters();
        until(|| site.counts() == (0, 0, 1)).await;
        assert!(opened(site.get().await));
    }
}

#[tokio::test]
async fn what_the_server_has_closed_is_not_used_again() {
    for site in [Site::h1(&origin(None), Seen::new()).await, Site::h2(&origin(None), Seen::new()).await] {
        site.get().await;
        // The first look at what is unused is over by then; the next one is far.
        sleep(Duration::from_millis(10)).await;
        site.seen.hangs_up.notify_waiters();
        until(|| site.seen.closed() == 1).await;
        // By the next time that a timer fires, this side has been told.
        sleep(Duration::from_millis(2)).await;
        assert!(opened(site.get().await));
    }
}

#[tokio::test]
async fn who_answers_unasked_is_not_asked_again() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let site = Site::h1(&origin(None), Seen { answer, ..Seen::new() }).await;
    for _ in 0..3 {
        assert!(opened(site.get().await));
    }
}

#[tokio::test]
async fn connections_of_other_settings_are_not_used() {
    let settings = origin(None);
    let site = Site::h1(&settings, Seen::new()).await;
    site.get().await;

    // A reload that changes nothing of them.
    let same = Arc::new(Dialer::new(&settings));
    let (mut wire, how) = site.connections.checkout(&same, &site.endpoint, "origin.test:1", None).await.unwrap();
    assert_eq!(how, How::Kept);
    ask(&mut wire).await;

    // One that does, while a connection is in use and another is not.
    let (mut other, _) = site.checkout().await.unwrap();
    let (held, _) = site.checkout().await.unwrap();
    ask(&mut other).await;
    other.finish();
    assert_eq!(site.counts(), (3, 1, 3));
    let changed = Arc::new(Dialer::new(&Origin { keepalive: 5, ..settings.clone() }));
    let by_changed = || site.connections.checkout(&changed, &site.endpoint, "origin.test:1", None);
    let (mut new, how) = by_changed().await.unwrap();
    assert!(opened(how));
    assert_eq!(site.counts(), (3, 0, 4), "the unused one is closed");
    ask(&mut new).await;
    new.finish();
    wire.finish();
    assert_eq!(site.counts(), (2, 1, 4), "the used one is not kept");
    drop(held);

    // A request that has begun before it neither uses the new ones nor drives them out.
    let (mut old, how) = site.checkout().await.unwrap();
    assert!(opened(how));
    ask(&mut old).await;
    old.finish();
    assert_eq!(site.counts(), (1, 1, 5));
    assert_eq!(by_changed().await.unwrap().1, How::Kept);
}

#[tokio::test]
async fn a_connection_is_not_used_under_another_name() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let seen = Seen::new();
    let server = seen.clone();
    let address = serve_tls(ServerTls::of(&issued).config(), move |stream| server.clone().h1(stream)).await;
    let site = Site::new(&origin(Some(authority.trusted())), &seen, address);
    site.get().await;
    let other = site.connections.checkout(&site.dialer, &site.endpoint, "other.test:1", None).await;
    assert_eq!(other.map(|_| ()).unwrap_err().kind, FailureKind::Tls);
}

/// With TLS 1.3 the server may say so when the request is under way already.
#[tokio::test]
async fn a_missing_client_certificate_is_a_failure_before_sending() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let issued = authority.issue("origin.test");
    for (alpn, http) in [("http/1.1", OriginHttp::Http1), ("h2", OriginHttp::Http2)] {
        let tls =
            ServerTls { clients: Some(&clients), alpn: &[alpn], versions: ONLY_TLS_1_3, ..ServerTls::of(&issued) };
        let address = serve_tls(tls.config(), |_| async {}).await;
        let settings = Origin { http, ..origin(Some(authority.trusted())) };
        let site = Site::new(&settings, &Seen::new(), address);
        let failed = async {
            let (mut wire, _) = site.checkout().await?;
            wire.send_head(&get()).await?;
            wire.read_head().await
        };
        let error = timeout(PATIENCE, failed).await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.untouched), (FailureKind::Tls, true), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_leaves_takes_its_connections_with_it() {
    let site = Site::h1(&origin(None), Seen::new()).await;
    site.get().await;
    let (mut wire, _) = site.checkout().await.unwrap();
    let (mut other, _) = site.checkout().await.unwrap();
    ask(&mut other).await;
    other.finish();
    let site = Arc::into_inner(site).unwrap();
    drop(site.connections);
    until(|| site.seen.closed() == 1).await;

    // What is in use goes on.
    ask(&mut wire).await;
    wire.finish();
    until(|| site.seen.closed() == 2).await;
}

#[tokio::test]
async fn a_connection_that_names_a_client_is_not_used_for_another() {
    let settings = Origin { proxy_protocol: Some(ProxyProtocol::V1), ..origin(None) };
    let site = Site::h1(&settings, Seen::new()).await;
    let (wire, how) = site.checkout().await.unwrap();
    assert!(opened(how));
    wire.unused();
    assert!(opened(site.checkout().await.unwrap().1));
    assert_eq!(site.counts(), (0, 0, 2));
}

#[tokio::test]
async fn for_an_upgrade_there_is_a_connection_of_its_own() {
    let site = Site::h1(&origin(None), Seen::new()).await;
    site.get().await;
    let own = site.connections.open_http1(&site.dialer, &site.endpoint, "origin.test:1", None).await;
    let (mut wire, how) = own.unwrap();
    assert!(opened(how));
    assert_eq!(wire.protocol(), Protocol::H1);
    ask(&mut wire).await;
    wire.finish();
    assert_eq!(site.counts(), (1, 1, 2));
}

#[tokio::test]
async fn a_hundred_requests_share_a_connection() {
    let site = Site::h2(&origin(None), Seen::waiting()).await;
    let mut burst = site.burst(100);
    until(|| site.seen.asked.load(Ordering::SeqCst) == 100).await;
    assert_eq!(site.counts(), (1, 0, 1));
    site.seen.may_answer.add_permits(100);
    let mut made = 0;
    while let Some(how) = burst.join_next().await {
        made += usize::from(opened(how.unwrap()));
    }
    assert_eq!((made, site.seen.accepted()), (1, 1));
    assert_eq!(site.counts(), (1, 1, 1));
    assert_eq!(site.get_kept(100).await, 0);
}

impl Site {
    /// How many of so many requests, one after the other, have led to new connections.
    async fn get_kept(&self, requests: usize) -> usize {
        self.seen.may_answer.add_permits(requests);
        let mut made = 0;
        for _ in 0..requests {
            made += usize::from(opened(self.get().await));
        }
        made
    }
}

#[tokio::test]
async fn more_requests_than_a_connection_takes_lead_to_as_many_as_are_needed() {
    let settings = Origin { streams: 10, ..origin(None) };
    let site = Site::h2(&settings, Seen::waiting()).await;
    let mut burst = site.burst(95);
    until(|| site.seen.asked.load(Ordering::SeqCst) == 95).await;
    assert_eq!(site.seen.accepted(), 10);
    site.seen.may_answer.add_permits(95);
    while let Some(how) = burst.join_next().await {
        how.unwrap();
    }
    assert_eq!(site.counts(), (10, 10, 10));
}

/// What a server allows is remembered for its next connections, which are used before it says so again.
#[tokio::test]
async fn a_server_may_allow_fewer() {
    let site = Site::h2(&origin(None), Seen { streams: 5, ..Seen::waiting() }).await;
    site.get_kept(1).await;
    let mut burst = site.burst(50);
    until(|| site.seen.asked.load(Ordering::SeqCst) == 51).await;
    assert_eq!(site.seen.accepted(), 10);
    site.seen.may_answer.add_permits(50);
    while let Some(how) = burst.join_next().await {
        how.unwrap();
    }
}

#[tokio::test]
async fn unused_shared_connections_are_bounded_too() {
    let settings = Origin { streams: 1, keepalive: 2, ..origin(None) };
    let site = Site::h2(&settings, Seen::waiting()).await;
    let mut burst = site.burst(5);
    until(|| site.seen.asked.load(Ordering::SeqCst) == 5).await;
    site.seen.may_answer.add_permits(5);
    while let Some(how) = burst.join_next().await {
        how.unwrap();
    }
    until(|| site.counts() == (2, 2, 5) && site.seen.closed() == 3).await;

    let settings = Origin { keepalive: 0, ..origin(None) };
    let site = Site::h2(&settings, Seen::new()).await;
    site.get().await;
    until(|| site.counts() == (0, 0, 1)).await;
}

/// What a server speaks is not known before the first handshake; the others then do not wait one for another.
#[tokio::test]
async fn a_burst_to_a_server_of_http_1_by_alpn() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let seen = Seen::waiting();
    let server = seen.clone();
    let config = ServerTls { alpn: &["http/1.1"], ..ServerTls::of(&issued) }.config();
    let address = serve_tls(config, move |stream| server.clone().h1(stream)).await;
    let site = Site::new(&origin(Some(authority.trusted())), &seen, address);

    let mut burst = site.burst(20);
    // All are asked before the first is answered.
    until(|| seen.asked.load(Ordering::SeqCst) == 20).await;
    assert_eq!(site.counts(), (20, 0, 20));
    seen.may_answer.add_permits(20);
    while let Some(how) = burst.join_next().await {
        assert!(opened(how.unwrap()));
    }
    assert_eq!(site.counts(), (20, 20, 20));
    assert_eq!(site.get_kept(3).await, 0);
}

#[tokio::test]
async fn a_burst_to_a_server_of_http_2_by_alpn() {
    let authority = Authority::new();
    let issued = authority.issue("origin.test");
    let seen = Seen::new();
    let server = seen.clone();
    let config = ServerTls { alpn: &["h2", "http/1.1"], ..ServerTls::of(&issued) }.config();
    let address = serve_tls(config, move |stream| server.clone().h2(stream)).await;
    let site = Site::new(&origin(Some(authority.trusted())), &seen, address);
    let mut burst = site.burst(50);
    while let Some(how) = burst.join_next().await {
        how.unwrap();
    }
    assert_eq!(seen.accepted(), 1);
    assert_eq!(site.checkout().await.unwrap().0.protocol(), Protocol::H2);
}

#[tokio::test]
async fn one_failure_is_told_to_all_who_wait() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    // It ends each connection before the handshake.
    let address = serve(move |tcp| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { drop(tcp) }
    })
    .await;
    let site = Site::new(&origin(Some(Authority::new().trusted())), &Seen::new(), address);
    let checkouts = (0..20).map(|_| site.checkout());
    for result in futures_util::future::join_all(checkouts).await {
        assert_eq!(result.map(|_| ()).unwrap_err().kind, FailureKind::Tls);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!(site.counts(), (0, 0, 0));
}

#[tokio::test]
async fn who_gives_up_takes_the_connection_from_nobody() {
    let site = Site::h2(&origin(None), Seen::new()).await;
    let mut first = Box::pin(site.checkout());
    let mut second = Box::pin(site.checkout());
    poll_fn(|cx| {
        assert!(first.as_mut().poll(cx).is_pending());
        assert!(second.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(first);
    assert_eq!(second.await.unwrap().1, How::Kept);
    assert_eq!(site.seen.accepted(), 1);
}
