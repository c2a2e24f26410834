//! One connection to the admin listener, kept from call to call.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout_at};

use super::address::{Address, Stream};
use super::tls::{Tls, refusal, refused_late};
use super::token::Token;
use crate::config::show_duration;

/// For a connection, if the whole call has no less: an edge that is there takes one at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer's body, at most, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Before a call is tried again, at least: an edge that says "at once" is not to be asked in a tight loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Sends calls one after the other. Needs tokio's runtime, with I/O and time.
pub struct Client {
    address: Address,
    token: Option<Token>,
    /// For an address that is secure.
    tls: Option<Tls>,
    timeout: Duration,
    kept: Option<SendRequest<Full<Bytes>>>,
}

/// What a call came to.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// The field Retry-After, from now.
    pub retry_after: Option<Duration>,
    /// Or why it could not be read to its end.
    pub body: Result<Bytes, String>,
}

/// A call that came to nothing that can be relied upon.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// For people, in one sentence or several lines.
    pub why: String,
    pub fate: Fate,
}

/// What became of the selectors of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are not purged.
    Nothing,
    /// They may be.
    Unknown,
    /// They are, but a crash of the edge can undo it.
    NotDurable,
}

impl Client {
    /// A call, with all that is tried again, takes no longer than `timeout`.
    pub fn new(address: Address, token: Option<Token>, timeout: Duration) -> Client {
        Client { address, token, tls: None, timeout, kept: None }
    }

    /// For an address that [is secure](Address::is_secure).
    pub fn with_tls(self, tls: Option<Tls>) -> Client {
        Client { tls, ..self }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Has `body` carried out. As long as the edge asks to come again later and `again` says that this is one of the
    /// answers to do so after, it is sent again.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn purge(&mut self, body: &Bytes, again: impl Fn(&Answer) -> bool) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut fate = Fate::Nothing;
        loop {
            let answer = self.exchange(body, deadline, &mut fate).await.map_err(|why| Failure { why, fate })?;
            let pause = match answer.retry_after {
                Some(pause) if again(&answer) => pause.max(SHORTEST_PAUSE),
                _ => return Ok(answer),
            };
            if deadline.saturating_duration_since(Instant::now()) <= pause {
                return Ok(answer);
            }
            sleep(pause).await;
        }
    }

    /// `fate` is set to "unknown" by a request that was sent and not answered.
    async fn exchange(&mut self, body: &Bytes, deadline: Instant, fate: &mut Fate) -> Result<Answer, String> {
        if let Some(kept) = self.kept.take() {
            match self.send(kept, body, deadline).await {
                Ok(answer) => return Ok(answer),
                // The edge ends a connection that was idle for long, perhaps just now. To purge twice does no harm.
                Err(Lost { sent, why }) => {
                    *fate = if sent { Fate::Unknown } else { *fate };
                    if let Some(why) = why {
                        return Err(why);
                    }
                }
            }
        }
        let new = self.connect(deadline).await?;
        self.send(new, body, deadline).await.map_err(|Lost { sent, why }| {
            *fate = if sent { Fate::Unknown } else { *fate };
            why.unwrap_or_else(|| format!("{} ended the connection without an answer", self.address))
        })
    }

    async fn connect(&self, deadline: Instant) -> Result<SendRequest<Full<Bytes>>, String> {
        let by = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let stream: Box<dyn Stream> = match timeout_at(by, self.address.connect(self.tls.as_ref())).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(no_connection(&self.address, &error)),
            Err(_) => {
                let waited = show_duration(self.timeout.min(CONNECT_TIMEOUT));
                return Err(format!(
                    "no connection to {} within {waited}: is that the address, and may this machine reach it?",
                    self.address
                ));
            }
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| format!("{}: {error}", self.address))?;
        // It ends with its sender. Its errors are told to whoever waits for an answer.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Keeps the connection if another request may follow on it.
    async fn send(
        &mut self,
        mut sender: SendRequest<Full<Bytes>>,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Answer, Lost> {
        let request = self.request(body).ok_or(Lost { sent: false, why: None })?;
        let exchange = async {
            sender.ready().await.map_err(|_| Lost { sent: false, why: None })?;
            // The request comes back where not a byte of it was written.
            let sent = sender.try_send_request(request).await;
            let response = sent.map_err(|mut error| match refused_late(error.error()) {
                Some(why) => Lost { sent: false, why: Some(format!("no connection to {}: {why}", self.address)) },
                None => Lost { sent: error.take_message().is_none(), why: None },
            })?;
            Ok(read(response).await)
        };
        let answer = match timeout_at(deadline, exchange).await {
            Ok(answer) => answer?,
            Err(_) => {
                let late = format!("{} has not answered within {}", self.address, show_duration(self.timeout));
                return Err(Lost { sent: true, why: Some(late + " (--timeout)") });
            }
        };
        // After a body that broke off, the connection is of no use.
        self.kept = answer.body.is_ok().then_some(sender);
        Ok(answer)
    }

    fn request(&self, body: &Bytes) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::post("/v1/purge")
            .header(HOST, self.address.host_field())
            .header(USER_AGENT, concat!("foreland/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.field());
        }
        request.body(Full::new(body.clone())).ok()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

/// A request without an answer.
struct Lost {
    /// Something of it may have arrived.
    sent: bool,
    /// What to say of that, where it is known; a request that is tried again would end the same.
    why: Option<String>,
}

async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
    let body = match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(format!("the answer is longer than {} MiB", MAX_ANSWER >> 20))
        }
        Err(_) => Err("the answer broke off".to_owned()),
    };
    Answer { status: head.status, retry_after, body }
}

/// Seconds or a date (RFC 9110 §10.2.3); a date that has passed is now.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn no_connection(address: &Address, error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let hint = "see `admin: address:` in its configuration, and --admin here";
    match (address, error.kind()) {
        (Address::Tcp { .. }, ConnectionRefused) => {
            format!("nothing listens at {address}: is the edge running, and is this its admin listener ({hint})?")
        }
        (Address::Unix(_), ConnectionRefused) => {
            format!("nobody listens on {address}: is the edge running, and is this its admin listener ({hint})?")
        }
        (Address::Unix(_), NotFound) => {
            format!("there is no socket {address}: is the edge running, and is this its admin listener ({hint})?")
        }
        (Address::Unix(_), PermissionDenied) => {
            format!("this user may not open {address}: run the command as the user whom the edge runs as")
        }
        _ => {
            let why = refusal(error).unwrap_or_else(|| error.to_string());
            format!("no connection to {address}: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("0"), Some(Duration::ZERO));
        assert_eq!(after("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
        for wrong in ["", "soon", "-1", "+1", "1.5"] {
            assert_eq!(after(wrong), None, "{wrong}");
        }
    }
}
